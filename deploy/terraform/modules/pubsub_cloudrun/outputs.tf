output "topic" {
  description = "The topic of jobs."
  value       = local.topic
}

output "subscription" {
  description = "The subscription."
  value       = var.create_subscription ? one(google_pubsub_subscription.jobs[*].id) : "projects/${var.project}/subscriptions/${local.subscription}"
}

output "dead_letter_topic" {
  description = "The topic of dead letters; null where the platform's subscription has its own."
  value       = one(google_pubsub_topic.dead_letters[*].id)
}

output "service_name" {
  description = "The service of Cloud Run."
  value       = google_cloud_run_v2_service.bridge.name
}

output "service_account" {
  description = "The bridge's own account, for databases and buckets to let in."
  value       = google_service_account.bridge.email
}

output "alerts" {
  description = "The alert policies, by what they are about."
  value       = { for name, alert in google_monitoring_alert_policy.alert : name => alert.name }
}
