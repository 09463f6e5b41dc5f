# Beyond the stack that this module replaces.

output "worker_policy" {
  description = "The worker's rights, as JSON."
  value       = jsonencode(local.worker_policy)
}

output "execution_policy" {
  description = "The rights of the role that starts tasks, as JSON."
  value       = jsonencode(local.execution_policy)
}
