variable "name" {
  description = "Begins the names of the alarms."
  type        = string
}

variable "cluster_name" {
  description = "The ECS cluster."
  type        = string
}

variable "cluster_arn" {
  description = "Its ARN."
  type        = string
}

variable "service_name" {
  description = "The ECS service of the bridge."
  type        = string
}

variable "log_group_name" {
  description = "The log group that the bridge writes to."
  type        = string
}

variable "waiting" {
  description = "Metrics whose sum is what waits."
  type = list(object({
    namespace  = string
    name       = string
    dimensions = map(string)
    statistic  = optional(string, "Maximum")
  }))
}

variable "dead_letter_queues" {
  description = "Queues of SQS that are to be empty, by name."
  type        = list(string)
  default     = []
}

variable "inference_service" {
  description = "The ECS service of the inference server, where it is another than the bridge's, for the share of fallbacks; empty for the bridge's own."
  type        = string
  default     = ""
}

variable "alarm_actions" {
  description = "ARNs that are told when an alarm rises or falls, such as a topic of SNS."
  type        = list(string)
  default     = []
}

variable "thresholds" {
  description = "When the alarms rise; those that are left out are as in main.tf."
  type        = map(number)
  default     = {}

  validation {
    condition = length(setsubtract(keys(var.thresholds), [
      "error_percent_warning", "error_percent_critical", "error_least_jobs", "backlog", "p95_seconds", "silent_minutes", "restarts",
      "fallback_percent", "fallback_least",
    ])) == 0
    error_message = "thresholds: expected error_percent_warning, error_percent_critical, error_least_jobs, backlog, p95_seconds, silent_minutes, restarts, fallback_percent, fallback_least."
  }
}
