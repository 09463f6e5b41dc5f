output "sqs_queue_url" {
  description = "The queue, as ML_WORKER_SQS_QUEUE_URL of the web service wants it."
  value       = aws_sqs_queue.ml_worker.url
}

output "sqs_queue_arn" {
  description = "The queue."
  value       = aws_sqs_queue.ml_worker.arn
}

output "sqs_dlq_url" {
  description = "The queue of dead letters."
  value       = aws_sqs_queue.ml_worker_dlq.url
}

output "sqs_dlq_arn" {
  description = "The queue of dead letters."
  value       = aws_sqs_queue.ml_worker_dlq.arn
}

output "ecs_cluster_name" {
  description = "The cluster."
  value       = aws_ecs_cluster.ml_worker.name
}

output "ecs_cluster_arn" {
  description = "The cluster."
  value       = aws_ecs_cluster.ml_worker.arn
}

output "ecs_service_name" {
  description = "The service."
  value       = aws_ecs_service.ml_worker.name
}

output "ecs_task_definition_arn" {
  description = "The newest revision of the task definition."
  value       = aws_ecs_task_definition.ml_worker.arn
}

output "cloudwatch_log_group" {
  description = "The log group."
  value       = aws_cloudwatch_log_group.ml_worker.name
}

output "security_group_id" {
  description = "The tasks' security group, for the database to let in."
  value       = aws_security_group.ml_worker.id
}
