# Two roles: one starts tasks, the other is the bridge's own.
locals {
  sources        = distinct(concat(values(var.secrets), values(var.files)))
  parameter_arns = [for arn in local.sources : arn if strcontains(arn, ":ssm:")]
  # Without the key of JSON, stage and version that may follow.
  secret_arns = distinct([for arn in local.sources : join(":", slice(split(":", arn), 0, 7)) if strcontains(arn, ":secretsmanager:")])

  assumed_by_tasks = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

resource "aws_iam_role" "execution" {
  name_prefix        = "${substr(var.name, 0, 24)}-start-"
  description        = "Starts tasks of ${var.name}: pulls images, writes logs, reads secrets"
  assume_role_policy = local.assumed_by_tasks
}

resource "aws_iam_role_policy_attachment" "execution" {
  role       = aws_iam_role.execution.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}

resource "aws_iam_role_policy" "secrets" {
  name = "secrets"
  role = aws_iam_role.execution.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      # A policy needs a statement: the log group's serves where there is no secret.
      [{ Effect = "Allow", Action = ["logs:CreateLogStream", "logs:PutLogEvents"], Resource = ["${aws_cloudwatch_log_group.bridge.arn}:*"] }],
      length(local.parameter_arns) == 0 ? [] : [{ Effect = "Allow", Action = ["ssm:GetParameters"], Resource = local.parameter_arns }],
      length(local.secret_arns) == 0 ? [] : [{ Effect = "Allow", Action = ["secretsmanager:GetSecretValue"], Resource = local.secret_arns }],
      length(var.kms_key_arns) == 0 ? [] : [{ Effect = "Allow", Action = ["kms:Decrypt"], Resource = var.kms_key_arns }],
    )
  })
}

resource "aws_iam_role" "task" {
  name_prefix        = "${substr(var.name, 0, 24)}-task-"
  description        = "The bridge ${var.name}"
  assume_role_policy = local.assumed_by_tasks
}

resource "aws_iam_role_policy" "task" {
  name = "task"
  role = aws_iam_role.task.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Protection"
        Effect    = "Allow"
        Action    = ["ecs:UpdateTaskProtection", "ecs:GetTaskProtection"]
        Resource  = [local.task_arns]
        Condition = { ArnEquals = { "ecs:cluster" = local.cluster_arn } }
      },
      {
        Sid      = "Metrics"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
        Resource = ["${aws_cloudwatch_log_group.bridge.arn}:*"]
      },
    ]
  })
}

resource "aws_iam_role_policy" "work" {
  count = var.task_policy == null ? 0 : 1

  name   = "work"
  role   = aws_iam_role.task.id
  policy = var.task_policy
}
