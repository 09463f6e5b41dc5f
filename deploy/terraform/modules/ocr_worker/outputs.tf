output "cluster_name" {
  description = "The cluster."
  value       = module.servers.cluster.name
}

output "bridge_service_name" {
  description = "The bridges' service."
  value       = module.bridge.service_name
}

output "inference_service_name" {
  description = "The servers' service."
  value       = module.servers.service_name
}

output "bridge_security_group_id" {
  description = "The bridges' security group, for Redis and PostgreSQL to let in."
  value       = module.bridge.security_group_id
}
