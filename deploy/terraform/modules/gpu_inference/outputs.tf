output "address" {
  description = "The servers, as BRIDGE_INFERENCE wants them."
  value       = local.address
}

output "cluster" {
  description = "The cluster; it has Fargate's capacity providers too, for bridges."
  value = {
    name = aws_ecs_cluster.inference.name
    arn  = aws_ecs_cluster.inference.arn
  }
  depends_on = [aws_ecs_cluster_capacity_providers.inference]
}

output "service_name" {
  description = "The service."
  value       = local.tasks
}

output "security_group_id" {
  description = "The servers' security group."
  value       = aws_security_group.server.id
}

output "task_role_name" {
  description = "The servers' own role."
  value       = aws_iam_role.task.name
}
