# Beyond the stack that this module replaces.

output "worker_policy" {
  description = "The worker's rights, as JSON."
  value       = jsonencode(local.worker_policy)
}

output "execution_policy" {
  description = "The rights of the role that starts tasks, as JSON."
  value       = jsonencode(local.execution_policy)
}

output "operator_policy" {
  description = "What people need who list and replay dead letters, as JSON; no task has it."
  value       = module.operator.policy
}
