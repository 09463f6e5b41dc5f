locals {
  metric = "${var.name}.TaskExits"
}

# ECS tells of each task that stopped; those that it stopped itself, and those that Spot took, are none of a worker's crashes.
resource "aws_cloudwatch_event_rule" "exits" {
  name        = "${var.name}-exits"
  description = "Tasks of ${var.service_name} that ended by themselves, or could not start."
  event_pattern = jsonencode({
    source      = ["aws.ecs"]
    detail-type = ["ECS Task State Change"]
    detail = {
      clusterArn = [var.cluster_arn]
      group      = ["service:${var.service_name}"]
      lastStatus = ["STOPPED"]
      stopCode   = ["EssentialContainerExited", "TaskFailedToStart"]
    }
  })
}

# Kept for the runbook: each event says why its task stopped.
resource "aws_cloudwatch_log_group" "exits" {
  #checkov:skip=CKV_AWS_158:Events of ECS hold no personal data; CloudWatch encrypts them with its own key.
  #checkov:skip=CKV_AWS_338:A month is as far back as a crash is looked into.
  name              = "/aws/events/${var.name}-exits"
  retention_in_days = 30
}

resource "aws_cloudwatch_log_resource_policy" "exits" {
  policy_name = "${var.name}-exits"
  policy_document = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = ["events.amazonaws.com", "delivery.logs.amazonaws.com"] }
      Action    = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource  = "${aws_cloudwatch_log_group.exits.arn}:*"
    }]
  })
}

resource "aws_cloudwatch_event_target" "exits" {
  rule = aws_cloudwatch_event_rule.exits.name
  arn  = aws_cloudwatch_log_group.exits.arn
}

resource "aws_cloudwatch_log_metric_filter" "exits" {
  name           = local.metric
  log_group_name = aws_cloudwatch_log_group.exits.name
  pattern        = "{ $.detail.lastStatus = \"STOPPED\" }"

  metric_transformation {
    namespace = "Lamina"
    name      = local.metric
    value     = "1"
  }
}

resource "aws_cloudwatch_metric_alarm" "restarts" {
  alarm_name          = "${var.name}-restarts"
  alarm_description   = "More than ${var.most_exits} tasks ended by themselves within 10 minutes. Figures: ECS' events."
  namespace           = "Lamina"
  metric_name         = local.metric
  statistic           = "Sum"
  period              = 600
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.most_exits
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
}
