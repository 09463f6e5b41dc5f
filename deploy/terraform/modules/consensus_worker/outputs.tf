output "topic" {
  description = "The topic of runs."
  value       = module.worker.topic
}

output "subscription" {
  description = "The subscription."
  value       = module.worker.subscription
}

output "service_account" {
  description = "The worker's account, for the database to let in."
  value       = module.worker.service_account
}
