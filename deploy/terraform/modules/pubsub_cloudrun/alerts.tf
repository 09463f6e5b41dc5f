# The alerts of deploy/monitoring, as far as Google Cloud knows their figures: from Pub/Sub, from Cloud Run, and from the bridge's log lines.
# There is no GPU here that could idle. In PromQL, as docs/runbook.md speaks it; a log-based metric is named by its own rule there.
locals {
  thresholds = merge({
    # Percent of the jobs and messages that end without a result, within 15 minutes, and how many must have ended.
    error_percent_warning  = 5
    error_percent_critical = 10
    error_least_jobs       = 10
    # Messages that wait for 10 minutes.
    backlog = 100
    # Seconds that the oldest message has not been acknowledged for: what waits and what is worked on.
    oldest_seconds = 600
    # Seconds from receipt to commit that 95 % of the jobs keep to, within 10 minutes.
    p95_seconds = 300
    # Minutes without an instance.
    silent_minutes = 5
    # Instances that ended by themselves, within 10 minutes.
    restarts = 3
    # Percent of the jobs that the CPU did in a GPU's place, or another program in the inference server's, within
    # 15 minutes, and how many must have ended.
    fallback_percent = 5
    fallback_least   = 20
  }, var.thresholds)

  of_service = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${var.name}\""
  # How PromQL calls them: whatever is neither letter nor digit is a low line.
  told = { for kind in ["jobs", "job_milliseconds", "exits"] : kind => "logging_googleapis_com:user_${replace(var.name, "-", "_")}_${kind}" }
  jobs = "${local.told.jobs}{monitored_resource=\"cloud_run_revision\""
  all  = "sum(increase(${local.jobs}}[15m]))"
  # What cannot be read has no outcome.
  failed      = "${local.jobs},outcome!=\"succeeded\"}"
  undelivered = "pubsub_googleapis_com:subscription_num_undelivered_messages{monitored_resource=\"pubsub_subscription\""
  waiting     = "max(${local.undelivered},subscription_id=\"${local.subscription}\"})"
  oldest      = "max(pubsub_googleapis_com:subscription_oldest_unacked_message_age{monitored_resource=\"pubsub_subscription\",subscription_id=\"${local.subscription}\"})"
  nobody      = "absent_over_time(run_googleapis_com:container_instance_count{monitored_resource=\"cloud_run_revision\",service_name=\"${var.name}\"}[${local.thresholds.silent_minutes}m])"

  alerts = {
    errors-warning = {
      title    = "more than ${local.thresholds.error_percent_warning} % of the jobs fail"
      severity = "WARNING"
      section  = "laminaerrorratehigh"
      query    = "100 * sum(increase(${local.failed}[15m])) / ${local.all} > ${local.thresholds.error_percent_warning} and ${local.all} >= ${local.thresholds.error_least_jobs}"
    }
    errors-critical = {
      title    = "more than ${local.thresholds.error_percent_critical} % of the jobs fail"
      severity = "CRITICAL"
      section  = "laminaerrorratecritical"
      query    = "100 * sum(increase(${local.failed}[15m])) / ${local.all} > ${local.thresholds.error_percent_critical} and ${local.all} >= ${local.thresholds.error_least_jobs}"
    }
    backlog = {
      title    = "more than ${local.thresholds.backlog} messages have waited for 10 minutes"
      severity = "WARNING"
      section  = "laminabackloghigh"
      query    = "${local.waiting} > ${local.thresholds.backlog}"
      duration = "600s"
    }
    oldest = {
      title    = "a message has not been done for ${local.thresholds.oldest_seconds} s"
      severity = "WARNING"
      section  = "laminabackloghigh"
      query    = "${local.oldest} > ${local.thresholds.oldest_seconds}"
    }
    slow = {
      title    = "one job in twenty takes more than ${local.thresholds.p95_seconds} s"
      severity = "WARNING"
      section  = "laminajobsslow"
      query    = "histogram_quantile(0.95, sum by (le) (rate(${local.told.job_milliseconds}_bucket{monitored_resource=\"cloud_run_revision\"}[10m]))) > ${1000 * local.thresholds.p95_seconds}"
      duration = "300s"
    }
    given-up = {
      title    = "a job or message ended without a result and lies in the ledger's dead letters"
      severity = "WARNING"
      section  = "laminadeadletters"
      query    = "sum(increase(${local.failed}[5m])) > 0"
    }
    dead-letters = {
      title    = "messages lie in ${local.dead_letter}-sub"
      severity = "WARNING"
      section  = "laminadeadletters"
      query    = "max(${local.undelivered},subscription_id=\"${local.dead_letter}-sub\"}) > 0"
    }
    silent = {
      title    = "no instance for ${local.thresholds.silent_minutes} minutes${var.min_instances > 0 ? "" : ", although messages wait"}"
      severity = "CRITICAL"
      section  = "laminanoheartbeat"
      # A service that may have none is silent by right while nothing waits.
      query = var.min_instances > 0 ? local.nobody : "(${local.waiting} > 0) and on () ${local.nobody}"
    }
    restarts = {
      title    = "more than ${local.thresholds.restarts} instances ended by themselves in 10 minutes"
      severity = "CRITICAL"
      section  = "laminarestarts"
      query    = "sum(increase(${local.told.exits}{monitored_resource=\"cloud_run_revision\"}[10m])) > ${local.thresholds.restarts}"
    }
    fallbacks = {
      title    = "more than ${local.thresholds.fallback_percent} % of the jobs are done by the CPU in a GPU's place, or by another program in the inference server's"
      severity = "WARNING"
      section  = "laminafallbackshare"
      query    = "100 * sum(increase(${local.jobs},fallback!=\"\"}[15m])) / ${local.all} > ${local.thresholds.fallback_percent} and ${local.all} >= ${local.thresholds.fallback_least}"
    }
  }
}

# The bridge writes one JSON line for each step; that of the commit has the job's time and outcome.
resource "google_logging_metric" "jobs" {
  project     = var.project
  name        = "${var.name}/jobs"
  description = "Jobs that ended, and messages that could not be read"
  filter      = "${local.of_service} AND jsonPayload.step=(\"committed\" OR \"buried\")"

  label_extractors = {
    outcome  = "EXTRACT(jsonPayload.outcome)"
    fallback = "EXTRACT(jsonPayload.fallback)"
  }

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"

    dynamic "labels" {
      for_each = { outcome = "succeeded, failed; nothing of what could not be read", fallback = "cpu where that did the work in a GPU's place, or the program that did it in the server's" }
      content {
        key         = labels.key
        value_type  = "STRING"
        description = labels.value
      }
    }
  }
}

resource "google_logging_metric" "job_milliseconds" {
  project         = var.project
  name            = "${var.name}/job_milliseconds"
  description     = "Milliseconds from a job's receipt to its commit"
  filter          = "${local.of_service} AND jsonPayload.step=\"committed\""
  value_extractor = "EXTRACT(jsonPayload.job_ms)"

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "DISTRIBUTION"
    unit        = "ms"
  }

  # From 10 ms to 2 hours.
  bucket_options {
    exponential_buckets {
      num_finite_buckets = 40
      growth_factor      = 1.4
      scale              = 10
    }
  }
}

# Cloud Run tells of an end that it did not ask for: a status, a signal, memory, a probe that failed.
resource "google_logging_metric" "exits" {
  project     = var.project
  name        = "${var.name}/exits"
  description = "Instances that ended by themselves"
  filter      = "${local.of_service} AND logName:\"run.googleapis.com%2Fvarlog%2Fsystem\" AND (severity>=WARNING OR textPayload=~\"Container called exit\\([1-9]\")"

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
  }
}

resource "google_monitoring_alert_policy" "alert" {
  for_each = local.alerts

  project               = var.project
  display_name          = "${var.name}: ${each.value.title}"
  combiner              = "OR"
  severity              = each.value.severity
  notification_channels = var.notification_channels

  conditions {
    display_name = each.value.title

    condition_prometheus_query_language {
      query               = each.value.query
      duration            = lookup(each.value, "duration", "0s")
      evaluation_interval = "60s"
      # A log-based metric is not known before its first line.
      disable_metric_validation = true
    }
  }

  documentation {
    content   = "What to do: docs/runbook.md#${each.value.section}"
    mime_type = "text/markdown"
  }

  depends_on = [google_logging_metric.jobs, google_logging_metric.job_milliseconds, google_logging_metric.exits]
}

moved {
  from = google_monitoring_alert_policy.backlog
  to   = google_monitoring_alert_policy.alert["backlog"]
}

moved {
  from = google_monitoring_alert_policy.dead_letters
  to   = google_monitoring_alert_policy.alert["dead-letters"]
}
