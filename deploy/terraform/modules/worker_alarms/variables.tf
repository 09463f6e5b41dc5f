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
  description = "When the alarms rise."
  type = object({
    # Percent of the jobs that end without a result, within 15 minutes, and how many must have ended.
    error_percent_warning  = optional(number, 5)
    error_percent_critical = optional(number, 10)
    error_least_jobs       = optional(number, 10)
    # Messages that wait for 10 minutes.
    backlog = optional(number, 100)
    # Seconds from receipt to commit that 95 % of the jobs keep to, within 5 minutes.
    p95_seconds = optional(number, 300)
    # Minutes without a sign of life while there is something to do.
    silent_minutes = optional(number, 5)
    # Tasks that ended by themselves, within 10 minutes.
    restarts = optional(number, 3)
    # Percent of the model requests that the CPU answered in a GPU's place, within 15 minutes.
    fallback_percent = optional(number, 5)
  })
  default = {}
}
