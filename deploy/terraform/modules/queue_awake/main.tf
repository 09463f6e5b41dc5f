# A queue that nothing touches for six hours stops telling CloudWatch what it holds, and may take a quarter of an hour to begin again:
# so long would the first message wait for a service that has gone to zero. Any action keeps a queue awake; this one, once an hour,
# writes a tag that is there already.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/monitoring-using-cloudwatch.html
data "aws_caller_identity" "current" {}

resource "aws_iam_role" "schedule" {
  name_prefix = "${substr(var.name, 0, 24)}-awake-"
  description = "Keeps the queue ${var.name} awake"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "schedule" {
  name = "tag"
  role = aws_iam_role.schedule.id
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Sid = "Tag", Effect = "Allow", Action = ["sqs:TagQueue"], Resource = [var.queue_arn] }]
  })
}

resource "aws_scheduler_schedule" "tag" {
  #checkov:skip=CKV_AWS_297:The schedule holds a queue's address and a tag, and no secret.
  name                = "${var.name}-awake"
  description         = "Keeps the queue awake, so that CloudWatch sees its next message at once"
  schedule_expression = "rate(1 hour)"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = "arn:aws:scheduler:::aws-sdk:sqs:tagQueue"
    role_arn = aws_iam_role.schedule.arn
    input    = jsonencode({ QueueUrl = var.queue_url, Tags = var.tags })
  }
}
