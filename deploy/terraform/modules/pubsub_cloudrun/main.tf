# Jobs of a topic of Pub/Sub, worked on by bridges on Cloud Run: pulled by a worker, or pushed to a service.
data "google_project" "project" {
  project_id = var.project
}

locals {
  pull         = var.delivery == "pull"
  topic        = var.create_topic ? one(google_pubsub_topic.jobs[*].id) : "projects/${var.project}/topics/${var.topic}"
  subscription = coalesce(var.subscription, "${var.topic}-sub")
  dead_letter  = coalesce(var.dead_letter_topic, "${var.topic}-dead-letter")
  # Pub/Sub's own account, which forwards dead letters and makes tokens.
  agent = "serviceAccount:service-${data.google_project.project.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
  # What tokens of pushes are made for: a name of ours, so that the service may know it before it has an address.
  audience = "https://${var.name}.${var.project}.lamina/push"

  environment = merge(
    {
      PUBSUB_PROJECT_ID    = var.project
      BRIDGE_HTTP          = "0.0.0.0:8080"
      BRIDGE_DRAIN_SECONDS = "7"
    },
    local.pull ? {
      BRIDGE_PUBSUB_SUBSCRIPTIONS = local.subscription
      BRIDGE_PUBSUB_TOPIC         = var.topic
      } : {
      BRIDGE_PUBSUB_PUSH_AUDIENCE = local.audience
      BRIDGE_PUBSUB_PUSH_ACCOUNT  = google_service_account.pusher[0].email
    },
    var.results_topic == "" ? {} : { BRIDGE_RESULTS_QUEUE = var.results_topic },
    var.environment,
  )
}

resource "google_pubsub_topic" "jobs" {
  #checkov:skip=CKV_GCP_83:Google's own key; name a key of yours in the project's organisation policy where you need one.
  count = var.create_topic ? 1 : 0

  project = var.project
  name    = var.topic
}

resource "google_pubsub_topic" "results" {
  #checkov:skip=CKV_GCP_83:Google's own key, as for the topic of jobs.
  count = var.results_topic == "" ? 0 : 1

  project = var.project
  name    = var.results_topic
}

resource "google_pubsub_topic" "dead_letters" {
  #checkov:skip=CKV_GCP_83:Google's own key, as for the topic of jobs.
  count = var.create_subscription ? 1 : 0

  project = var.project
  name    = local.dead_letter
}

# Without a subscription a topic keeps nothing.
resource "google_pubsub_subscription" "dead_letters" {
  count = var.create_subscription ? 1 : 0

  project                    = var.project
  name                       = "${local.dead_letter}-sub"
  topic                      = google_pubsub_topic.dead_letters[0].id
  message_retention_duration = "1209600s"

  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_subscription" "jobs" {
  count = var.create_subscription ? 1 : 0

  project                    = var.project
  name                       = local.subscription
  topic                      = local.topic
  ack_deadline_seconds       = var.ack_deadline_seconds
  message_retention_duration = "604800s"
  # A stale receipt is told where deliveries are pulled; pushes have none.
  enable_exactly_once_delivery = local.pull

  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters[0].id
    max_delivery_attempts = var.max_delivery_attempts
  }

  dynamic "push_config" {
    for_each = local.pull ? [] : [1]
    content {
      push_endpoint = "${google_cloud_run_v2_service.bridge.uri}/push"
      oidc_token {
        service_account_email = google_service_account.pusher[0].email
        audience              = local.audience
      }
    }
  }

  depends_on = [google_pubsub_topic_iam_member.forwards]
}

resource "google_cloud_run_v2_service" "bridge" {
  project  = var.project
  name     = var.name
  location = var.region
  # A push comes from Google's own network; nobody else calls.
  ingress             = "INGRESS_TRAFFIC_INTERNAL_ONLY"
  deletion_protection = false
  # Whoever calls is checked by IAM, for this service's own address and for the audience of the pushes.
  custom_audiences = local.pull ? [] : [local.audience]

  template {
    service_account = google_service_account.bridge.email
    timeout         = "3600s"
    # Of requests, not of jobs: those are BRIDGE_CONCURRENCY's. A worker that pulls gets none but its probes.
    max_instance_request_concurrency = local.pull ? 1 : 80

    scaling {
      min_instance_count = var.min_instances
      max_instance_count = var.max_instances
    }

    containers {
      image = var.image

      ports {
        container_port = 8080
      }

      resources {
        limits = { cpu = var.cpu, memory = var.memory }
        # Jobs run between requests.
        cpu_idle          = false
        startup_cpu_boost = true
      }

      startup_probe {
        period_seconds    = 5
        timeout_seconds   = 4
        failure_threshold = 24
        http_get {
          path = "/livez"
          port = 8080
        }
      }

      liveness_probe {
        period_seconds    = 30
        timeout_seconds   = 4
        failure_threshold = 3
        http_get {
          path = "/livez"
          port = 8080
        }
      }

      dynamic "env" {
        for_each = local.environment
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = var.secrets
        content {
          name = env.key
          value_source {
            secret_key_ref {
              secret  = env.value
              version = "latest"
            }
          }
        }
      }

      dynamic "volume_mounts" {
        for_each = var.cloud_sql_instance == "" ? [] : [1]
        content {
          name       = "cloudsql"
          mount_path = "/cloudsql"
        }
      }
    }

    dynamic "volumes" {
      for_each = var.cloud_sql_instance == "" ? [] : [var.cloud_sql_instance]
      content {
        name = "cloudsql"
        cloud_sql_instance {
          instances = [volumes.value]
        }
      }
    }

    dynamic "vpc_access" {
      for_each = var.network == null ? [] : [var.network]
      content {
        egress = "PRIVATE_RANGES_ONLY"
        network_interfaces {
          network    = vpc_access.value.network
          subnetwork = vpc_access.value.subnetwork
        }
      }
    }
  }

  depends_on = [google_secret_manager_secret_iam_member.reads]
}
