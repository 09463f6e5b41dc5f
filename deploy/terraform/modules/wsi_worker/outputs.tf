output "server_policy" {
  description = "What an inference server elsewhere needs: task_policy of gpu_inference."
  value       = jsonencode(local.server_policy)
}

output "server_settings" {
  description = "The settings that such a server needs: environment of gpu_inference."
  value = {
    INFERENCE_READ_ROOTS  = "s3://${var.bucket}/wsi/"
    INFERENCE_WRITE_ROOTS = local.results
  }
}

output "waiting" {
  description = "The metrics of what waits, for the scale of gpu_inference."
  value       = [for queue in local.queues : queue.waiting]
}

output "working" {
  description = "The metrics of what is being worked on."
  value       = [for queue in local.queues : queue.working]
}

output "queue_url" {
  description = "The queue that requests come to."
  value       = module.requests.url
}

output "topic_arns" {
  description = "The topics: requested, completed, failed."
  value       = local.topic_arns
}

output "security_group_id" {
  description = "The bridges' security group."
  value       = module.bridge.security_group_id
}

output "service_name" {
  description = "The bridges' service."
  value       = module.bridge.service_name
}

output "operator_policy" {
  description = "What people need who list and replay dead letters, as JSON; no task has it."
  value       = module.operator.policy
}
