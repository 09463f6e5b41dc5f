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

  validation {
    condition     = var.min_capacity >= 0 && floor(var.min_capacity) == var.min_capacity
    error_message = "min_capacity: expected a whole number from 0 on."
  }
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

  validation {
    condition     = var.max_capacity >= 1 && var.max_capacity >= var.min_capacity
    error_message = "max_capacity: expected at least 1, and at least min_capacity (${var.min_capacity})."
  }
}

variable "target_backlog" {
  description = "Messages that may wait for each task; more of them add tasks."
  type        = number

  validation {
    condition     = var.target_backlog > 0
    error_message = "target_backlog: expected more than 0, such as 4: what waits is divided by it."
  }
}

variable "concurrency" {
  description = "Jobs that one task works on at once."
  type        = number
  default     = 1

  validation {
    condition     = var.concurrency >= 1
    error_message = "concurrency: expected at least 1, the jobs that a task works on at once."
  }
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

  validation {
    condition     = var.scale_in_cooldown >= 0
    error_message = "scale_in_cooldown: expected seconds, from 0 on."
  }
}

variable "scale_out_cooldown" {
  description = "Seconds between two steps up: longer than CloudWatch takes to tell of the tasks that the first one asked for, or they are asked for once more."
  type        = number
  default     = 180

  validation {
    condition     = var.scale_out_cooldown >= 0
    error_message = "scale_out_cooldown: expected seconds, from 0 on."
  }
}
