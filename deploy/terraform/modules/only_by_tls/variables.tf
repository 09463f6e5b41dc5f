variable "queues" {
  description = "Queues without a policy of their own, by any name."
  type = map(object({
    url = string
    arn = string
  }))
}
