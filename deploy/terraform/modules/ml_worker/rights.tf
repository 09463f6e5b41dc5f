# What the worker may do. Of the stack that this replaces it lacked ChangeMessageVisibility, by which leases are renewed, and
# UpdateTaskProtection, by which a task with a job outlives scale-in.
locals {
  worker_policy = {
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Jobs"
        Effect = "Allow"
        Action = [
          "sqs:ReceiveMessage",
          "sqs:DeleteMessage",
          "sqs:ChangeMessageVisibility",
          "sqs:GetQueueAttributes",
          "sqs:GetQueueUrl",
        ]
        Resource = [aws_sqs_queue.ml_worker.arn]
      },
      {
        Sid      = "DeadLetters"
        Effect   = "Allow"
        Action   = ["sqs:SendMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"]
        Resource = [aws_sqs_queue.ml_worker_dlq.arn]
      },
      {
        Sid       = "Protection"
        Effect    = "Allow"
        Action    = ["ecs:UpdateTaskProtection", "ecs:GetTaskProtection"]
        Resource  = ["arn:${local.part}:ecs:${var.aws_region}:${local.account}:task/${aws_ecs_cluster.ml_worker.name}/*"]
        Condition = { ArnEquals = { "ecs:cluster" = aws_ecs_cluster.ml_worker.arn } }
      },
      {
        Sid      = "Metrics"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
        Resource = ["${aws_cloudwatch_log_group.ml_worker.arn}:*"]
      },
    ]
  }

  execution_policy = {
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "Secrets"
          Effect   = "Allow"
          Action   = ["ssm:GetParameters"]
          Resource = [for name in values(local.secrets) : "${local.parameters}${name}"]
        },
        {
          Sid      = "Logs"
          Effect   = "Allow"
          Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
          Resource = ["${aws_cloudwatch_log_group.ml_worker.arn}:*"]
        },
      ],
      length(var.kms_key_arns) == 0 ? [] : [{ Sid = "Keys", Effect = "Allow", Action = ["kms:Decrypt"], Resource = var.kms_key_arns }],
    )
  }
}

resource "aws_iam_role_policy" "worker" {
  count = var.manage_role_policies ? 1 : 0

  name   = "${local.name}-worker"
  role   = element(split("/", var.task_role_arn), length(split("/", var.task_role_arn)) - 1)
  policy = jsonencode(local.worker_policy)
}

resource "aws_iam_role_policy" "execution" {
  count = var.manage_role_policies ? 1 : 0

  name   = "${local.name}-execution"
  role   = element(split("/", var.execution_role_arn), length(split("/", var.execution_role_arn)) - 1)
  policy = jsonencode(local.execution_policy)
}

module "operator" {
  source = "../operator_rights"

  dead_letter_arns = [aws_sqs_queue.ml_worker_dlq.arn]
  queue_arns       = [aws_sqs_queue.ml_worker.arn]
}
