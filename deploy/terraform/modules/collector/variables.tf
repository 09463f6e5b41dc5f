variable "region" {
  description = "The AWS region."
  type        = string
}

variable "cluster_name" {
  description = "The ECS cluster; a dimension of each metric."
  type        = string
}

variable "service_name" {
  description = "The ECS service; a dimension of each metric."
  type        = string
}

variable "log_group_name" {
  description = "The log group that metrics are written to, in CloudWatch's embedded format."
  type        = string
}

variable "targets" {
  description = "Addresses of /metrics in the task, as host:port."
  type        = list(string)
}
