# The consensus pipeline's worker: runs pulled from Pub/Sub, on Cloud Run, with the names of the stack that it replaces.
locals {
  by_iam = var.database_password_secret == ""
  # As Cloud SQL names an account that signs in by IAM.
  account = "${var.name}@${var.project}.iam"
}

module "worker" {
  source = "../pubsub_cloudrun"

  project               = var.project
  region                = var.region
  name                  = var.name
  topic                 = var.topic
  create_topic          = var.create_topic
  subscription          = var.subscription
  create_subscription   = var.create_subscription
  delivery              = "pull"
  image                 = var.image
  cloud_sql_instance    = var.cloud_sql_instance
  min_instances         = var.min_instances
  max_instances         = var.max_instances
  max_delivery_attempts = var.max_delivery_attempts
  network               = var.network
  notification_channels = var.notification_channels
  thresholds            = var.thresholds

  secrets = merge(
    { OPENAI_API_KEY = var.openai_key_secret },
    local.by_iam ? {} : { DB_PASSWORD = var.database_password_secret },
  )

  environment = merge(
    {
      ENV                         = "production"
      BRIDGE_CONSENSUS            = "on"
      PUBSUB_TOPIC                = var.topic
      PUBSUB_SUBSCRIPTION         = var.subscription
      WORKER_MAX_CONCURRENCY      = tostring(var.concurrency)
      USE_CLOUD_SQL_CONNECTOR     = "true"
      DB_INSTANCE_CONNECTION_NAME = var.cloud_sql_instance
      DB_NAME                     = var.database
      DB_USER                     = coalesce(var.database_user, local.by_iam ? local.account : "postgres")
      DB_IAM_AUTH                 = tostring(local.by_iam)
    },
    var.settings,
  )
}
