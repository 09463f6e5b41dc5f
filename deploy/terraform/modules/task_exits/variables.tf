variable "name" {
  description = "Begins the names of rule, log group and alarm."
  type        = string
}

variable "cluster_arn" {
  description = "The ECS cluster."
  type        = string
}

variable "service_name" {
  description = "The ECS service."
  type        = string
}

variable "most_exits" {
  description = "Tasks that may end by themselves within 10 minutes; more of them raise the alarm."
  type        = number
}

variable "alarm_actions" {
  description = "ARNs that are told when the alarm rises or falls."
  type        = list(string)
  default     = []
}
