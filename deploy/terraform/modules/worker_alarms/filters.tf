# The bridge writes one JSON line for each step; that of the commit has the job's time and outcome.
resource "aws_cloudwatch_log_metric_filter" "ended" {
  name           = local.jobs.ended
  log_group_name = var.log_group_name
  pattern        = "{ $.step = \"committed\" }"

  metric_transformation {
    namespace = local.namespace
    name      = local.jobs.ended
    value     = "1"
  }
}

resource "aws_cloudwatch_log_metric_filter" "failed" {
  name           = local.jobs.failed
  log_group_name = var.log_group_name
  pattern        = "{ $.step = \"committed\" && $.outcome = \"failed\" }"

  metric_transformation {
    namespace = local.namespace
    name      = local.jobs.failed
    value     = "1"
  }
}

resource "aws_cloudwatch_log_metric_filter" "poison" {
  name           = local.jobs.poison
  log_group_name = var.log_group_name
  pattern        = "{ $.step = \"buried\" }"

  metric_transformation {
    namespace = local.namespace
    name      = local.jobs.poison
    value     = "1"
  }
}

resource "aws_cloudwatch_log_metric_filter" "spared" {
  name           = local.jobs.spared
  log_group_name = var.log_group_name
  pattern        = "{ $.step = \"committed\" && $.fallback = * }"

  metric_transformation {
    namespace = local.namespace
    name      = local.jobs.spared
    value     = "1"
  }
}

resource "aws_cloudwatch_log_metric_filter" "took" {
  name           = local.jobs.took
  log_group_name = var.log_group_name
  pattern        = "{ $.step = \"committed\" && $.job_ms = * }"

  metric_transformation {
    namespace = local.namespace
    name      = local.jobs.took
    value     = "$.job_ms"
    unit      = "Milliseconds"
  }
}
