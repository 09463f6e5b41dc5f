output "cluster_name" {
  description = "The cluster."
  value       = local.cluster_name
}

output "service_name" {
  description = "The service."
  value       = aws_ecs_service.bridge.name
}

output "task_definition_arn" {
  description = "The newest revision of the task definition."
  value       = aws_ecs_task_definition.bridge.arn
}

output "security_group_id" {
  description = "The tasks' security group, for databases and inference servers to let in."
  value       = aws_security_group.bridge.id
}

output "task_role_name" {
  description = "The bridge's own role."
  value       = aws_iam_role.task.name
}

output "log_group_name" {
  description = "The log group."
  value       = aws_cloudwatch_log_group.bridge.name
}
