output "queue_url" {
  description = "The queue that documents are asked for by."
  value       = module.queue.url
}

output "results_queue_url" {
  description = "The queue that answers go to when a request names none."
  value       = aws_sqs_queue.results.url
}

output "service_name" {
  description = "The service."
  value       = module.bridge.service_name
}

output "security_group_id" {
  description = "The tasks' security group, for the database to let in."
  value       = module.bridge.security_group_id
}

output "operator_policy" {
  description = "What people need who list and replay dead letters, as JSON; no task has it."
  value       = module.operator.policy
}
