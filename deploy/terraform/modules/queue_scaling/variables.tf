variable "name" {
  description = "Begins the names of policies and alarms."
  type        = string
}

variable "cluster_name" {
  description = "The ECS cluster, with Container Insights: its counts of tasks are read."
  type        = string
}

variable "service_name" {
  description = "The ECS service that is scaled."
  type        = string
}

variable "min_capacity" {
  description = "Fewest tasks; 0 lets the service go while nothing waits."
  type        = number
}

variable "may_rest" {
  description = "Whether something else, such as a schedule, takes the fewest tasks to 0 for a time: the first message wakes the service then too."
  type        = bool
  default     = false
}

variable "follow_queues" {
  description = "Whether the count follows what waits; false for a service that reads no queue, which has its bounds alone."
  type        = bool
  default     = true
}

variable "max_capacity" {
  description = "Most tasks."
  type        = number
}

variable "target_backlog" {
  description = "Messages that may wait for each task; more of them add tasks."
  type        = number
}

variable "concurrency" {
  description = "Jobs that one task works on at once."
  type        = number
  default     = 1
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

variable "working" {
  description = "Metrics whose sum is what is being worked on; tasks that work are never counted as too many."
  type = list(object({
    namespace  = string
    name       = string
    dimensions = map(string)
    statistic  = optional(string, "Maximum")
  }))
}

variable "hold_while_working" {
  description = "Take no task away while anything at all is being worked on, for tasks that nothing protects."
  type        = bool
  default     = false
}

variable "scale_in_cooldown" {
  description = "Seconds between two steps down."
  type        = number
  default     = 300
}

variable "scale_out_cooldown" {
  description = "Seconds between two steps up."
  type        = number
  default     = 60
}
