output "container_definitions" {
  description = "The containers, as JSON."
  value       = jsonencode(concat(local.files, local.inference, [local.bridge, local.collector]))
}

output "volumes" {
  description = "Volumes of the task, all of them gone with it."
  value       = toset(concat(["state"], var.inference == null ? [] : ["engines"], length(var.files) == 0 ? [] : ["files"]))
}
