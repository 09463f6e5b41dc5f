output "node_group_name" {
  description = "The node group."
  value       = aws_eks_node_group.gpu.node_group_name
}

output "node_role_arn" {
  description = "The nodes' role."
  value       = aws_iam_role.node.arn
}

output "labels" {
  description = "The nodes' labels, for selectors."
  value       = local.labels
}

output "autoscaling_group_name" {
  description = "The group of autoscaling that EKS made for it."
  value       = aws_eks_node_group.gpu.resources[0].autoscaling_groups[0].name
}
