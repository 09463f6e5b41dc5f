# What AWS' OpenTelemetry collector does in each task: it reads /metrics once a minute and tells CloudWatch of the few that alarms
# and scaling read. Counters become what was added since the last look.
locals {
  by_service = [
    "bridge_jobs_in_flight",
    "bridge_dead_letters",
    "bridge_outbox_oldest_seconds",
    "bridge_queue_reachable",
    "lamina_requests_total",
    "lamina_fallbacks_total",
    "lamina_waiting_requests",
    "lamina_device_utilisation_ratio",
    "lamina_server_ready",
  ]
  by_queue = ["bridge_queue_messages"]

  configuration = {
    receivers = {
      prometheus = {
        config = {
          scrape_configs = [{
            job_name        = "lamina"
            scrape_interval = "60s"
            static_configs = [{
              targets = var.targets
              labels  = { ClusterName = var.cluster_name, ServiceName = var.service_name }
            }]
            metric_relabel_configs = [{
              source_labels = ["__name__"]
              regex         = join("|", concat(local.by_service, local.by_queue))
              action        = "keep"
            }]
          }]
        }
      }
    }
    exporters = {
      awsemf = {
        region                  = var.region
        namespace               = "Lamina"
        log_group_name          = var.log_group_name
        log_stream_name         = "metrics/${var.service_name}"
        dimension_rollup_option = "NoDimensionRollup"
        metric_declarations = [
          { dimensions = [["ClusterName", "ServiceName"]], metric_name_selectors = [for name in local.by_service : "^${name}$"] },
          { dimensions = [["ClusterName", "ServiceName", "queue", "state"]], metric_name_selectors = [for name in local.by_queue : "^${name}$"] },
        ]
      }
    }
    service = {
      pipelines = {
        metrics = { receivers = ["prometheus"], exporters = ["awsemf"] }
      }
    }
  }
}
