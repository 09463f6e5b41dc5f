# The alerts of deploy/monitoring as CloudWatch alarms. Each says where its figures come from: AWS itself, the bridge's log lines
# (metric filters), or the programs' /metrics (the collector in the task).
locals {
  thresholds = merge({
    # Percent of the jobs that end without a result, within 15 minutes, and how many must have ended.
    error_percent_warning  = 5
    error_percent_critical = 10
    error_least_jobs       = 10
    # Messages that wait for 10 minutes.
    backlog = 100
    # Seconds from receipt to commit that 95 % of the jobs keep to, within 5 minutes.
    p95_seconds = 300
    # Minutes without a sign of life while there is something to do.
    silent_minutes = 5
    # Tasks that ended by themselves, within 10 minutes.
    restarts = 3
    # Percent of the model requests that the CPU answered in a GPU's place, or of the jobs that it did there, or another program in the
    # server's, within 15 minutes, and how many there must have been.
    fallback_percent = 5
    fallback_least   = 20
  }, var.thresholds)

  namespace = "Lamina"
  # Dimensions of metrics from log lines are values in the line; the service is not, so the names carry it.
  jobs = {
    ended   = "${var.name}.JobsEnded"
    failed  = "${var.name}.JobsFailed"
    took    = "${var.name}.JobMilliseconds"
    poison  = "${var.name}.MessagesUnreadable"
    spared  = "${var.name}.JobsFallenBack"
    put_off = "${var.name}.TriesPutOff"
    unset   = "${var.name}.TriesUnset"
    refused = "${var.name}.TriesRefused"
  }
  service_dimensions   = { ClusterName = var.cluster_name, ServiceName = var.service_name }
  inference_dimensions = { ClusterName = var.cluster_name, ServiceName = var.inference_service == "" ? var.service_name : var.inference_service }

  # A minute that is not told yet is as the one before: were it none, an alarm that wants every minute would never rise.
  waiting     = { for index, metric in var.waiting : "w${index}" => metric }
  waiting_sum = join(" + ", [for id in keys(local.waiting) : "FILL(FILL(${id}, REPEAT), 0)"])
  errors      = { warning = local.thresholds.error_percent_warning, critical = local.thresholds.error_percent_critical }
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  for_each = local.errors

  alarm_name          = "${var.name}-errors-${each.key}"
  alarm_description   = "More than ${each.value} % of the jobs and messages ended without a result within 15 minutes. Figures: the bridge's log."
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions

  dynamic "metric_query" {
    for_each = { ended = local.jobs.ended, failed = local.jobs.failed, poison = local.jobs.poison }
    content {
      id          = metric_query.key
      return_data = false
      metric {
        namespace   = local.namespace
        metric_name = metric_query.value
        stat        = "Sum"
        period      = 900
      }
    }
  }
  metric_query {
    id          = "all"
    expression  = "FILL(ended, 0) + FILL(poison, 0)"
    return_data = false
  }
  # Nothing is divided by zero: a figure that cannot be worked out would be missing, and with it whatever it is part of.
  metric_query {
    id          = "percent"
    label       = "Jobs without a result, percent"
    expression  = "IF(all >= ${local.thresholds.error_least_jobs}, 100 * (FILL(failed, 0) + FILL(poison, 0)) / (all + (all < 1)), 0)"
    return_data = true
  }
}

resource "aws_cloudwatch_metric_alarm" "backlog" {
  alarm_name          = "${var.name}-backlog"
  alarm_description   = "More than ${local.thresholds.backlog} messages have waited for 10 minutes. Figures: the queue."
  comparison_operator = "GreaterThanThreshold"
  threshold           = local.thresholds.backlog
  evaluation_periods  = 10
  datapoints_to_alarm = 10
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions

  dynamic "metric_query" {
    for_each = local.waiting
    content {
      id          = metric_query.key
      return_data = false
      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.name
        dimensions  = metric_query.value.dimensions
        stat        = metric_query.value.statistic
        period      = 60
      }
    }
  }
  metric_query {
    id          = "waiting"
    label       = "Messages that wait"
    expression  = local.waiting_sum
    return_data = true
  }
}

resource "aws_cloudwatch_metric_alarm" "slow" {
  alarm_name          = "${var.name}-slow"
  alarm_description   = "One job in twenty takes more than ${local.thresholds.p95_seconds} s from receipt to commit. Figures: the bridge's log."
  namespace           = local.namespace
  metric_name         = local.jobs.took
  extended_statistic  = "p95"
  period              = 300
  comparison_operator = "GreaterThanThreshold"
  threshold           = 1000 * local.thresholds.p95_seconds
  evaluation_periods  = 2
  datapoints_to_alarm = 2
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
}

# Dead letters lie in the ledger, whatever the queue; `bridge dead list` shows them.
resource "aws_cloudwatch_metric_alarm" "given_up" {
  alarm_name          = "${var.name}-given-up"
  alarm_description   = "A job or message ended without a result and lies in the ledger's dead letters. Figures: the bridge's log."
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions

  dynamic "metric_query" {
    for_each = { failed = local.jobs.failed, poison = local.jobs.poison }
    content {
      id          = metric_query.key
      return_data = false
      metric {
        namespace   = local.namespace
        metric_name = metric_query.value
        stat        = "Sum"
        period      = 300
      }
    }
  }
  metric_query {
    id          = "dead"
    label       = "Jobs and messages without a result"
    expression  = "FILL(failed, 0) + FILL(poison, 0)"
    return_data = true
  }
}

# That one told of the newest; this one stays until all are replayed or dropped.
resource "aws_cloudwatch_metric_alarm" "ledger" {
  alarm_name          = "${var.name}-dead-letters"
  alarm_description   = "Jobs or messages without a result lie in the ledger's dead letters. Figures: /metrics."
  namespace           = local.namespace
  metric_name         = "bridge_dead_letters"
  dimensions          = local.service_dimensions
  statistic           = "Maximum"
  period              = 60
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 1
  # A service of no tasks tells nothing, and its dead letters lie there still.
  treat_missing_data = "ignore"
  alarm_actions      = var.alarm_actions
  ok_actions         = var.alarm_actions
}

resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  for_each = toset(var.dead_letter_queues)

  alarm_name          = "${var.name}-dead-letters-${each.key}"
  alarm_description   = "Messages lie in ${each.key}. Figures: the queue."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = each.key }
  statistic           = "Maximum"
  period              = 60
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
}

# A service of no tasks is silent by right while nothing waits.
resource "aws_cloudwatch_metric_alarm" "silent" {
  alarm_name          = "${var.name}-silent"
  alarm_description   = "No bridge has told its metrics for ${local.thresholds.silent_minutes} minutes, although messages wait or tasks run. Figures: /metrics."
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 1
  evaluation_periods  = local.thresholds.silent_minutes
  datapoints_to_alarm = local.thresholds.silent_minutes
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions

  dynamic "metric_query" {
    for_each = local.waiting
    content {
      id          = metric_query.key
      return_data = false
      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.name
        dimensions  = metric_query.value.dimensions
        stat        = metric_query.value.statistic
        period      = 60
      }
    }
  }
  metric_query {
    id          = "running"
    return_data = false
    metric {
      namespace   = "ECS/ContainerInsights"
      metric_name = "RunningTaskCount"
      dimensions  = local.service_dimensions
      stat        = "Maximum"
      period      = 60
    }
  }
  metric_query {
    id          = "told"
    return_data = false
    metric {
      namespace   = local.namespace
      metric_name = "bridge_jobs_in_flight"
      dimensions  = local.service_dimensions
      stat        = "SampleCount"
      period      = 60
    }
  }
  metric_query {
    id          = "silent"
    label       = "1 while there is something to do and nobody tells of it"
    expression  = "IF((${local.waiting_sum} + FILL(FILL(running, REPEAT), 0)) > 0 AND FILL(told, 0) < 1, 1, 0)"
    return_data = true
  }
}

module "exits" {
  source = "../task_exits"

  name          = var.name
  cluster_arn   = var.cluster_arn
  service_name  = var.service_name
  most_exits    = local.thresholds.restarts
  alarm_actions = var.alarm_actions
}

resource "aws_cloudwatch_metric_alarm" "fallbacks" {
  alarm_name          = "${var.name}-fallbacks"
  alarm_description   = "The CPU answered more than ${local.thresholds.fallback_percent} % of the model requests in a GPU's place, or did so many of the jobs there, or another program in the inference server's. Figures: /metrics, the bridge's log."
  comparison_operator = "GreaterThanThreshold"
  threshold           = local.thresholds.fallback_percent
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions

  dynamic "metric_query" {
    for_each = {
      requests  = { name = "lamina_requests_total", dimensions = local.inference_dimensions }
      fallbacks = { name = "lamina_fallbacks_total", dimensions = local.inference_dimensions }
      ended     = { name = local.jobs.ended, dimensions = {} }
      spared    = { name = local.jobs.spared, dimensions = {} }
    }
    content {
      id          = metric_query.key
      return_data = false
      metric {
        namespace   = local.namespace
        metric_name = metric_query.value.name
        dimensions  = metric_query.value.dimensions
        stat        = "Sum"
        period      = 900
      }
    }
  }
  dynamic "metric_query" {
    for_each = { of_requests = { part = "fallbacks", all = "requests" }, of_jobs = { part = "spared", all = "ended" } }
    content {
      id          = metric_query.key
      expression  = "IF(FILL(${metric_query.value.all}, 0) >= ${local.thresholds.fallback_least}, 100 * FILL(${metric_query.value.part}, 0) / (FILL(${metric_query.value.all}, 0) + (FILL(${metric_query.value.all}, 0) < 1)), 0)"
      return_data = false
    }
  }
  metric_query {
    id          = "percent"
    label       = "Requests or jobs that fell back, percent"
    expression  = "IF(of_requests > of_jobs, of_requests, of_jobs)"
    return_data = true
  }
}
