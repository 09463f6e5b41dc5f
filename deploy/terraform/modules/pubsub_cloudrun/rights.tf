resource "google_service_account" "bridge" {
  project      = var.project
  account_id   = var.name
  display_name = "The bridge ${var.name}"
}

resource "google_service_account" "pusher" {
  count = local.pull ? 0 : 1

  project      = var.project
  account_id   = "${var.name}-push"
  display_name = "Pushes jobs to ${var.name}"
}

resource "google_pubsub_subscription_iam_member" "receives" {
  count = local.pull ? 1 : 0

  project      = var.project
  subscription = local.subscription
  role         = "roles/pubsub.subscriber"
  member       = google_service_account.bridge.member

  depends_on = [google_pubsub_subscription.jobs]
}

resource "google_pubsub_topic_iam_member" "answers" {
  count = var.results_topic == "" ? 0 : 1

  project = var.project
  topic   = google_pubsub_topic.results[0].name
  role    = "roles/pubsub.publisher"
  member  = google_service_account.bridge.member
}

# Pub/Sub itself takes a dead letter off the subscription and publishes it.
resource "google_pubsub_topic_iam_member" "forwards" {
  count = var.create_subscription ? 1 : 0

  project = var.project
  topic   = google_pubsub_topic.dead_letters[0].name
  role    = "roles/pubsub.publisher"
  member  = local.agent
}

resource "google_pubsub_subscription_iam_member" "forwards" {
  count = var.create_subscription ? 1 : 0

  project      = var.project
  subscription = google_pubsub_subscription.jobs[0].name
  role         = "roles/pubsub.subscriber"
  member       = local.agent
}

resource "google_cloud_run_v2_service_iam_member" "pushes" {
  count = local.pull ? 0 : 1

  project  = var.project
  location = var.region
  name     = google_cloud_run_v2_service.bridge.name
  role     = "roles/run.invoker"
  member   = google_service_account.pusher[0].member
}

# The account that pushes is impersonated by Pub/Sub.
resource "google_service_account_iam_member" "tokens" {
  count = local.pull ? 0 : 1

  service_account_id = google_service_account.pusher[0].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.agent
}

resource "google_secret_manager_secret_iam_member" "reads" {
  for_each = toset(values(var.secrets))

  project   = var.project
  secret_id = each.value
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.bridge.member
}

resource "google_project_iam_member" "database" {
  for_each = toset(var.cloud_sql_instance == "" ? [] : ["roles/cloudsql.client", "roles/cloudsql.instanceUser"])

  project = var.project
  role    = each.value
  member  = google_service_account.bridge.member

  condition {
    title      = "One instance"
    expression = "resource.name == 'projects/${split(":", var.cloud_sql_instance)[0]}/instances/${split(":", var.cloud_sql_instance)[2]}' && resource.service == 'sqladmin.googleapis.com'"
  }
}
