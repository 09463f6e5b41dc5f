# A queue as `bridge topology apply` makes it: one for errors, which SQS moves dead messages to, and one for what is somebody else's.
locals {
  kept_seconds = 14 * 24 * 3600
  # SQS counts interruptions as failures; the bridge's ledger does not, and decides. This is for messages that kill every bridge.
  most_receipts = 1000
  tags          = { Awake = "true" }
  neighbours    = { error = "${var.name}_error", skipped = "${var.name}_skipped" }
}

resource "aws_sqs_queue" "neighbour" {
  for_each = local.neighbours

  name                      = each.value
  message_retention_seconds = local.kept_seconds
  sqs_managed_sse_enabled   = true
}

module "only_by_tls" {
  source = "../only_by_tls"

  queues = { for key, queue in aws_sqs_queue.neighbour : key => { url = queue.url, arn = queue.arn } }
}

moved {
  from = aws_sqs_queue_policy.neighbour
  to   = module.only_by_tls.aws_sqs_queue_policy.queue
}

resource "aws_sqs_queue" "jobs" {
  name                       = var.name
  message_retention_seconds  = local.kept_seconds
  visibility_timeout_seconds = var.visibility_seconds
  receive_wait_time_seconds  = 20
  sqs_managed_sse_enabled    = true
  tags                       = local.tags

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.neighbour["error"].arn
    maxReceiveCount     = local.most_receipts
  })
}

resource "aws_sqs_queue_policy" "jobs" {
  queue_url = aws_sqs_queue.jobs.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Sid       = "OnlyByTLS"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = "sqs:*"
        Resource  = aws_sqs_queue.jobs.arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      }],
      # As the bridge writes it, so that `bridge topology apply` finds nothing to do.
      length(var.topic_arns) == 0 ? [] : [{
        Sid       = "LaminaTopics"
        Effect    = "Allow"
        Principal = { Service = "sns.amazonaws.com" }
        Action    = "sqs:SendMessage"
        Resource  = aws_sqs_queue.jobs.arn
        Condition = { ArnEquals = { "aws:SourceArn" = var.topic_arns } }
      }],
    )
  })
}

resource "aws_sns_topic_subscription" "jobs" {
  count = length(var.topic_arns)

  topic_arn            = var.topic_arns[count.index]
  protocol             = "sqs"
  endpoint             = aws_sqs_queue.jobs.arn
  raw_message_delivery = true
}

module "awake" {
  source = "../queue_awake"

  name      = var.name
  queue_arn = aws_sqs_queue.jobs.arn
  queue_url = aws_sqs_queue.jobs.url
  tags      = local.tags
}
