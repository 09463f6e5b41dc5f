output "url" {
  description = "The queue's URL."
  value       = aws_sqs_queue.jobs.url
}

output "arn" {
  description = "The queue's ARN."
  value       = aws_sqs_queue.jobs.arn
}

output "name" {
  description = "The queue's name."
  value       = aws_sqs_queue.jobs.name
}

output "neighbour_arns" {
  description = "The queues for errors and for what is somebody else's."
  value       = [for queue in aws_sqs_queue.neighbour : queue.arn]
}

output "neighbour_names" {
  description = "Their names; both are to be empty."
  value       = values(local.neighbours)
}

output "waiting" {
  description = "The metric of what waits there, for queue_scaling and worker_alarms."
  value = {
    namespace  = "AWS/SQS"
    name       = "ApproximateNumberOfMessagesVisible"
    dimensions = { QueueName = var.name }
  }
}

output "working" {
  description = "The metric of what is being worked on."
  value = {
    namespace  = "AWS/SQS"
    name       = "ApproximateNumberOfMessagesNotVisible"
    dimensions = { QueueName = var.name }
  }
}
