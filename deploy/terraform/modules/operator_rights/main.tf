# What `bridge dead list` and `bridge dead replay` need of SQS. For people on duty, never for a task.
locals {
  policy = {
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "DeadLetters"
        Effect = "Allow"
        Action = [
          "sqs:ReceiveMessage",
          "sqs:DeleteMessage",
          "sqs:ChangeMessageVisibility",
          "sqs:GetQueueAttributes",
          "sqs:GetQueueUrl",
          "sqs:ListDeadLetterSourceQueues",
        ]
        Resource = var.dead_letter_arns
      },
      {
        Sid      = "SendAgain"
        Effect   = "Allow"
        Action   = ["sqs:SendMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"]
        Resource = var.queue_arns
      },
    ]
  }
}
