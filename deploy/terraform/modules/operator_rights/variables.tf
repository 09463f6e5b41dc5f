variable "dead_letter_arns" {
  description = "The queues that dead messages lie in."
  type        = list(string)
}

variable "queue_arns" {
  description = "The queues that they are sent to again."
  type        = list(string)
}
