output "policy" {
  description = "The rights, as JSON."
  value       = jsonencode(local.policy)
}
