locals {
  queue_names = concat([var.queue_name], var.plain_queue ? ["wsi-jobs-in"] : [])
  key_rights = var.bucket_kms_key_arn == null ? [] : [{
    Sid      = "Key"
    Effect   = "Allow"
    Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
    Resource = [var.bucket_kms_key_arn]
  }]

  # AWS' own key lets in whoever may publish; a customer's does not.
  topic_key_rights = startswith(var.topic_kms_key, "alias/aws/") ? [] : [{
    Sid      = "TopicKey"
    Effect   = "Allow"
    Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
    Resource = [var.topic_kms_key]
  }]

  # Slides are read; results are written, read again and tidied up.
  bucket_rights = [
    {
      Sid      = "Slides"
      Effect   = "Allow"
      Action   = ["s3:GetObject"]
      Resource = ["${local.slides}/wsi/*"]
    },
    {
      Sid      = "Results"
      Effect   = "Allow"
      Action   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
      Resource = ["${local.slides}/results/*"]
    },
    {
      # Without it an object that is missing is a refusal, and not told as missing.
      Sid       = "Missing"
      Effect    = "Allow"
      Action    = ["s3:ListBucket"]
      Resource  = [local.slides]
      Condition = { StringLike = { "s3:prefix" = ["wsi/*", "results/*"] } }
    },
  ]

  bridge_policy = {
    Version = "2012-10-17"
    Statement = concat(local.bucket_rights, local.key_rights, local.topic_key_rights, [
      {
        Sid    = "Requests"
        Effect = "Allow"
        Action = [
          "sqs:ReceiveMessage",
          "sqs:DeleteMessage",
          "sqs:ChangeMessageVisibility",
          "sqs:GetQueueAttributes",
          "sqs:GetQueueUrl",
        ]
        Resource = [for queue in local.queues : queue.arn]
      },
      {
        Sid      = "Answers"
        Effect   = "Allow"
        Action   = ["sqs:SendMessage", "sqs:GetQueueUrl", "sqs:GetQueueAttributes"]
        Resource = concat([for queue in aws_sqs_queue.answers : queue.arn], flatten([for queue in local.queues : queue.neighbour_arns]))
      },
      {
        Sid      = "Events"
        Effect   = "Allow"
        Action   = ["sns:Publish"]
        Resource = [local.topic_arns.completed, local.topic_arns.failed]
      },
    ])
  }

  server_policy = {
    Version   = "2012-10-17"
    Statement = concat(local.bucket_rights, local.key_rights)
  }
}

module "operator" {
  source = "../operator_rights"

  dead_letter_arns = flatten([for queue in local.queues : queue.neighbour_arns])
  queue_arns       = [for queue in local.queues : queue.arn]
}
