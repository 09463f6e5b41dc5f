# The bridge writes one JSON line for each step; that of the commit has the job's time and outcome.
locals {
  filters = {
    ended  = { pattern = "{ $.step = \"committed\" }", value = "1", unit = null }
    failed = { pattern = "{ $.step = \"committed\" && $.outcome = \"failed\" }", value = "1", unit = null }
    poison = { pattern = "{ $.step = \"buried\" }", value = "1", unit = null }
    spared = { pattern = "{ $.step = \"committed\" && $.fallback = * }", value = "1", unit = null }
    took   = { pattern = "{ $.step = \"committed\" && $.job_ms = * }", value = "$.job_ms", unit = "Milliseconds" }
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
