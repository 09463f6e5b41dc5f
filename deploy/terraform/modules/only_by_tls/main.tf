# SQS answers plain HTTP too: these queues refuse it. One that has a policy for other reasons has the same statement in that.
resource "aws_sqs_queue_policy" "queue" {
  for_each = var.queues

  queue_url = each.value.url
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyByTLS"
      Effect    = "Deny"
      Principal = { AWS = "*" }
      Action    = "sqs:*"
      Resource  = each.value.arn
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}
