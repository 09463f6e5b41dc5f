variable "name" {
  description = "The queue; beside it lie {name}_error and {name}_skipped."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,72}$", var.name))
    error_message = "name: expected at most 72 letters, digits, dashes and low lines, as {name}_skipped is a queue too. Queues that keep an order (.fifo) are not made."
  }
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
