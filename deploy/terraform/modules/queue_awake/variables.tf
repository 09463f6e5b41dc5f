variable "name" {
  description = "The queue; begins the names of schedule and role."
  type        = string
}

variable "queue_arn" {
  description = "The queue."
  type        = string
}

variable "queue_url" {
  description = "Its URL."
  type        = string
}

variable "tags" {
  description = "Tags that the queue has already."
  type        = map(string)
}
