locals {
  parameter_arns = [for arn in values(local.files) : arn if strcontains(arn, ":ssm:")]
  secret_arns    = distinct([for arn in values(local.files) : join(":", slice(split(":", arn), 0, 7)) if strcontains(arn, ":secretsmanager:")])

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
  description        = "Starts inference servers of ${var.name}: pulls images, writes logs, reads secrets"
  assume_role_policy = local.assumed_by_tasks
}

resource "aws_iam_role_policy_attachment" "execution" {
  role       = aws_iam_role.execution.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}

resource "aws_iam_role_policy" "secrets" {
  count = local.secured ? 1 : 0

  name = "secrets"
  role = aws_iam_role.execution.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      length(local.parameter_arns) == 0 ? [] : [{ Effect = "Allow", Action = ["ssm:GetParameters"], Resource = local.parameter_arns }],
      length(local.secret_arns) == 0 ? [] : [{ Effect = "Allow", Action = ["secretsmanager:GetSecretValue"], Resource = local.secret_arns }],
      length(var.kms_key_arns) == 0 ? [] : [{ Effect = "Allow", Action = ["kms:Decrypt"], Resource = var.kms_key_arns }],
    )
  })
}

resource "aws_iam_role" "task" {
  name_prefix        = "${substr(var.name, 0, 24)}-task-"
  description        = "The inference servers of ${var.name}"
  assume_role_policy = local.assumed_by_tasks
}

resource "aws_iam_role_policy" "metrics" {
  name = "metrics"
  role = aws_iam_role.task.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "Metrics"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
      Resource = ["${aws_cloudwatch_log_group.inference.arn}:*"]
    }]
  })
}

resource "aws_iam_role_policy" "work" {
  count = var.task_policy == null ? 0 : 1

  name   = "work"
  role   = aws_iam_role.task.id
  policy = var.task_policy
}

resource "aws_iam_role" "instance" {
  name_prefix = "${substr(var.name, 0, 24)}-gpu-"
  description = "GPU instances of ${var.name}: join the cluster"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "instance" {
  role       = aws_iam_role.instance.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
}

resource "aws_iam_instance_profile" "instance" {
  name_prefix = "${substr(var.name, 0, 24)}-gpu-"
  role        = aws_iam_role.instance.name
}
