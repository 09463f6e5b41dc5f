# Documents of a bucket, asked for by messages of SQS in Lamina's own form, read on processors: all of it comes and goes with the queue.
data "aws_partition" "current" {}

locals {
  bucket    = "arn:${data.aws_partition.current.partition}:s3:::${var.bucket}"
  documents = "s3://${var.bucket}/${var.documents_prefix}"
  results   = "s3://${var.bucket}/${var.results_prefix}"

  policy = {
    Version = "2012-10-17"
    Statement = concat(
      [
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
          Resource = [module.queue.arn]
        },
        {
          Sid      = "Answers"
          Effect   = "Allow"
          Action   = ["sqs:SendMessage", "sqs:GetQueueUrl", "sqs:GetQueueAttributes"]
          Resource = concat([aws_sqs_queue.results.arn], module.queue.neighbour_arns)
        },
        {
          Sid      = "Documents"
          Effect   = "Allow"
          Action   = ["s3:GetObject"]
          Resource = ["${local.bucket}/${var.documents_prefix}*"]
        },
        {
          Sid      = "Results"
          Effect   = "Allow"
          Action   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
          Resource = ["${local.bucket}/${var.results_prefix}*"]
        },
        {
          # Without it an object that is missing is a refusal, and not told as missing.
          Sid       = "Missing"
          Effect    = "Allow"
          Action    = ["s3:ListBucket"]
          Resource  = [local.bucket]
          Condition = { StringLike = { "s3:prefix" = ["${var.documents_prefix}*", "${var.results_prefix}*"] } }
        },
      ],
      var.bucket_kms_key_arn == null ? [] : [{
        Sid      = "Key"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = [var.bucket_kms_key_arn]
      }],
    )
  }
}

module "queue" {
  source = "../sqs_queue"

  name = var.name
}

resource "aws_sqs_queue" "results" {
  name                      = "${var.name}-results"
  message_retention_seconds = 14 * 24 * 3600
  sqs_managed_sse_enabled   = true
}

module "only_by_tls" {
  source = "../only_by_tls"

  queues = { results = { url = aws_sqs_queue.results.url, arn = aws_sqs_queue.results.arn } }
}

module "bridge" {
  source = "../bridge_service"

  name               = var.name
  vpc_id             = var.vpc_id
  subnet_ids         = var.subnet_ids
  assign_public_ip   = var.assign_public_ip
  image              = var.image
  cpu                = var.cpu
  memory             = var.memory
  min_capacity       = var.min_capacity
  max_capacity       = var.max_capacity
  target_backlog     = var.target_backlog
  concurrency        = var.concurrency
  alarm_actions      = var.alarm_actions
  thresholds         = var.thresholds
  secrets            = { BRIDGE_DATABASE = var.database_secret }
  task_policy        = jsonencode(local.policy)
  waiting            = [module.queue.waiting]
  working            = [module.queue.working]
  dead_letter_queues = module.queue.neighbour_names

  environment = merge(
    {
      BRIDGE_SQS_QUEUES    = module.queue.name
      BRIDGE_RESULTS_QUEUE = aws_sqs_queue.results.name
      BRIDGE_RESULTS       = local.results
    },
    var.settings,
  )

  inference = {
    image  = var.inference_image
    memory = var.memory - 1024
    environment = merge(
      { INFERENCE_SERVICES = "documents", INFERENCE_READ_ROOTS = local.documents, INFERENCE_WRITE_ROOTS = local.results },
      var.inference_environment,
    )
  }
}

module "operator" {
  source = "../operator_rights"

  dead_letter_arns = module.queue.neighbour_arns
  queue_arns       = [module.queue.arn]
}
