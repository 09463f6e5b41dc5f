variable "name" {
  description = "The queue; beside it lie {name}_error and {name}_skipped."
  type        = string
}

variable "topic_arns" {
  description = "Topics of SNS that send to it, raw."
  type        = list(string)
  default     = []
}

variable "visibility_seconds" {
  description = "How long a message is hidden before a bridge that received it renews that; BRIDGE_LEASE_SECONDS counts instead."
  type        = number
  default     = 60
}
