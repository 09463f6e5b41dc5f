variable "region" {
  description = "The AWS region."
  type        = string
}

variable "cluster_name" {
  description = "The ECS cluster, as the metrics name it."
  type        = string
}

variable "service_name" {
  description = "The ECS service, as the metrics name it."
  type        = string
}

variable "container_name" {
  description = "The bridge's container."
  type        = string
  default     = "bridge"
}

variable "log_group_name" {
  description = "The log group of all containers."
  type        = string
}

variable "image" {
  description = "The bridge's image, from Dockerfile.bridge."
  type        = string
}

variable "environment" {
  description = "The bridge's settings: BRIDGE_… and the names of the worker that it replaces."
  type        = map(string)
}

variable "secrets" {
  description = "Settings that are secret, by the ARN or name of their parameter or secret."
  type        = map(string)
  default     = {}
}

variable "files" {
  description = "Files in /run/lamina whose content is secret, by the ARN of their parameter or secret: ca.crt, say."
  type        = map(string)
  default     = {}
}

variable "stop_seconds" {
  description = "Seconds between SIGTERM and SIGKILL: ECS allows 120, which is the whole of Spot's notice."
  type        = number
  default     = 120

  validation {
    condition     = var.stop_seconds >= 30 && var.stop_seconds <= 120
    error_message = "stop_seconds: expected 30 to 120, which is the most that ECS waits."
  }
}

variable "inference" {
  description = "An inference server in the same task, on its processors: its image, its settings, and the MiB it may use; null for one elsewhere."
  type = object({
    image       = string
    environment = optional(map(string), {})
    memory      = number
  })
  default = null
}

variable "disk_gib" {
  description = "GiB of the task's disk; the server copies slides there that it cannot read in place."
  type        = number
  default     = 20
}

variable "collector_image" {
  description = "AWS' build of the OpenTelemetry collector, which tells the metrics of both programs to CloudWatch. Pin it by digest."
  type        = string
}

variable "shell_image" {
  description = "A small image with sh, which writes secret files. Pin it by digest."
  type        = string
}
