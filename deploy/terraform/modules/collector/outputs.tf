output "configuration" {
  description = "The collector's configuration; JSON is YAML too."
  value       = jsonencode(local.configuration)
}

output "metric_names" {
  description = "The metrics that reach CloudWatch, in the namespace Lamina."
  value       = concat(local.by_service, local.by_queue)
}
