output "policy_arns" {
  description = "The scaling policies."
  value       = concat(aws_appautoscaling_policy.backlog[*].arn, aws_appautoscaling_policy.wake[*].arn)
}

output "resource_id" {
  description = "The service, as Application Auto Scaling names it."
  value       = aws_appautoscaling_target.service.resource_id
}
