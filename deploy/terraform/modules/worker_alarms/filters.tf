# The bridge writes one JSON line for each step; that of the commit has the job's time and outcome.
locals {
  filters = {
    ended  = { pattern = "{ $.step = \"committed\" }", value = "1", unit = null }
    failed = { pattern = "{ $.step = \"committed\" && $.outcome = \"failed\" }", value = "1", unit = null }
    poison = { pattern = "{ $.step = \"buried\" }", value = "1", unit = null }
    spared = { pattern = "{ $.step = \"committed\" && $.fallback = * }", value = "1", unit = null }
    # Tries that came to nothing for want of a server, of a setting, or of the server's right to a slide; no attempt is counted.
    put_off = { pattern = "{ $.step = \"handled\" && ($.outcome = \"OverloadError\" || $.outcome = \"HeldUpError\") }", value = "1", unit = null }
    unset   = { pattern = "{ $.step = \"handled\" && $.outcome = \"ConfigurationError\" }", value = "1", unit = null }
    refused = { pattern = "{ $.step = \"handled\" && $.outcome = \"NotYetError\" && $.system = \"wsi-requests\" }", value = "1", unit = null }
    took    = { pattern = "{ $.step = \"committed\" && $.job_ms = * }", value = "$.job_ms", unit = "Milliseconds" }
  }
}

resource "aws_cloudwatch_log_metric_filter" "jobs" {
  for_each = local.filters

  name           = local.jobs[each.key]
  log_group_name = var.log_group_name
  pattern        = each.value.pattern

  metric_transformation {
    namespace = local.namespace
    name      = local.jobs[each.key]
    value     = each.value.value
    unit      = each.value.unit
  }
}

moved {
  from = aws_cloudwatch_log_metric_filter.ended
  to   = aws_cloudwatch_log_metric_filter.jobs["ended"]
}

moved {
  from = aws_cloudwatch_log_metric_filter.failed
  to   = aws_cloudwatch_log_metric_filter.jobs["failed"]
}

moved {
  from = aws_cloudwatch_log_metric_filter.poison
  to   = aws_cloudwatch_log_metric_filter.jobs["poison"]
}

moved {
  from = aws_cloudwatch_log_metric_filter.spared
  to   = aws_cloudwatch_log_metric_filter.jobs["spared"]
}

moved {
  from = aws_cloudwatch_log_metric_filter.took
  to   = aws_cloudwatch_log_metric_filter.jobs["took"]
}

# However few they are, jobs that wait for half an hour while none ends wait for something that is missing.
resource "aws_cloudwatch_metric_alarm" "put_off" {
  alarm_name          = "${var.name}-put-off"
  alarm_description   = "For half an hour every try was put off for want of a server or of a right, and no job ended. Figures: the bridge's log."
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 1
  # A cold start of 6 minutes lies in two of them at most, so that none is told while its first job takes long.
  evaluation_periods  = 3
  datapoints_to_alarm = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions

  dynamic "metric_query" {
    for_each = { for key in ["ended", "put_off", "unset", "refused"] : key => local.jobs[key] }
    content {
      id          = metric_query.key
      return_data = false
      metric {
        namespace   = local.namespace
        metric_name = metric_query.value
        stat        = "Sum"
        period      = 600
      }
    }
  }
  metric_query {
    id          = "stuck"
    label       = "1 while tries are put off and no job ends"
    expression  = "IF(FILL(put_off, 0) + FILL(unset, 0) + FILL(refused, 0) > 0 AND FILL(ended, 0) < 1, 1, 0)"
    return_data = true
  }
}
