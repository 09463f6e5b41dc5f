# The lab platform's worker: jobs of SQS and rollups, on Fargate Spot. It takes the place of the stack of the same name; docs/deploy-aws.md
# says how its state moves.
data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  name    = "${var.environment}-ml-worker"
  account = data.aws_caller_identity.current.account_id
  part    = data.aws_partition.current.partition

  secrets = {
    POSTGRES_USER     = "${var.ssm_parameter_prefix}/db/user"
    POSTGRES_PASSWORD = "${var.ssm_parameter_prefix}/db/password"
  }
  parameters = "arn:${local.part}:ssm:${var.aws_region}:${local.account}:parameter"

  # Only the queue wakes a worker, and nothing in it tells of rows that wait in the tables.
  min_capacity = var.worker_mode == "sqs" ? var.min_capacity : max(1, var.min_capacity)

  tags = {
    Environment = var.environment
  }
}

resource "aws_sqs_queue" "ml_worker_dlq" {
  name                      = "${local.name}-dlq"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
  tags                      = merge(local.tags, { Name = "${local.name}-dlq" })
}

resource "aws_sqs_queue" "ml_worker" {
  name                       = local.name
  delay_seconds              = 0
  max_message_size           = 262144
  message_retention_seconds  = 345600
  receive_wait_time_seconds  = 20
  visibility_timeout_seconds = 300
  sqs_managed_sse_enabled    = true

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.ml_worker_dlq.arn
    maxReceiveCount     = var.max_receive_count
  })

  tags = merge(local.tags, { Name = local.name, Awake = "true" })
}

resource "aws_sqs_queue_redrive_allow_policy" "ml_worker_dlq" {
  queue_url = aws_sqs_queue.ml_worker_dlq.id
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.ml_worker.arn]
  })
}

resource "aws_sqs_queue_policy" "ml_worker" {
  queue_url = aws_sqs_queue.ml_worker.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "AllowAPIToSendMessages"
        Effect    = "Allow"
        Principal = { AWS = var.api_role_arn }
        Action    = ["sqs:SendMessage", "sqs:GetQueueUrl"]
        Resource  = aws_sqs_queue.ml_worker.arn
      },
      {
        Sid       = "OnlyByTLS"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = "sqs:*"
        Resource  = aws_sqs_queue.ml_worker.arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

module "only_by_tls" {
  source = "../only_by_tls"

  queues = { dlq = { url = aws_sqs_queue.ml_worker_dlq.url, arn = aws_sqs_queue.ml_worker_dlq.arn } }
}

moved {
  from = aws_sqs_queue_policy.ml_worker_dlq
  to   = module.only_by_tls.aws_sqs_queue_policy.queue["dlq"]
}

resource "aws_ssm_parameter" "queue_url" {
  #checkov:skip=CKV2_AWS_34:The address of a queue is no secret, and the platform reads it as a plain string.
  name  = "${var.ssm_parameter_prefix}/ml_worker/queue_url"
  type  = "String"
  value = aws_sqs_queue.ml_worker.url
  tags  = local.tags
}

resource "aws_ssm_parameter" "enabled" {
  #checkov:skip=CKV2_AWS_34:A switch is no secret, and the platform reads it as a plain string.
  name  = "${var.ssm_parameter_prefix}/ml_worker/enabled"
  type  = "String"
  value = "true"
  tags  = local.tags
}

resource "aws_cloudwatch_metric_alarm" "queue_depth_high" {
  alarm_name          = "${local.name}-queue-depth-high"
  alarm_description   = "More than 10 messages have waited for 10 minutes."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.ml_worker.name }
  statistic           = "Average"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 10
  period              = 300
  evaluation_periods  = 2
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
}

resource "aws_cloudwatch_metric_alarm" "dlq_messages" {
  alarm_name          = "${local.name}-dlq-messages"
  alarm_description   = "More than one message lies in the dead-letter queue."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.ml_worker_dlq.name }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 1
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
}

resource "aws_ecs_cluster" "ml_worker" {
  name = "${local.name}-cluster"

  setting {
    name  = "containerInsights"
    value = "enabled"
  }

  tags = merge(local.tags, { Name = "${local.name}-cluster" })
}

resource "aws_ecs_cluster_capacity_providers" "ml_worker" {
  cluster_name       = aws_ecs_cluster.ml_worker.name
  capacity_providers = ["FARGATE_SPOT", "FARGATE"]

  default_capacity_provider_strategy {
    capacity_provider = "FARGATE_SPOT"
    base              = 0
    weight            = 100
  }
}

resource "aws_cloudwatch_log_group" "ml_worker" {
  #checkov:skip=CKV_AWS_158:Logs carry ids and no personal data; CloudWatch encrypts them with its own key.
  #checkov:skip=CKV_AWS_338:A week, as in the stack that this replaces.
  name              = "/ecs/${local.name}"
  retention_in_days = 7
  tags              = merge(local.tags, { Name = "${local.name}-logs" })
}

module "containers" {
  source = "../bridge_containers"

  region          = var.aws_region
  cluster_name    = aws_ecs_cluster.ml_worker.name
  service_name    = local.name
  container_name  = "ml-worker"
  log_group_name  = aws_cloudwatch_log_group.ml_worker.name
  image           = coalesce(var.bridge_image, "${var.ecr_repository_url}/lamina-bridge:${var.image_tag}")
  collector_image = var.collector_image
  shell_image     = var.shell_image
  stop_seconds    = var.stop_seconds
  secrets         = local.secrets
  environment = merge(
    {
      ML_WORKER_MODE               = var.worker_mode
      ML_WORKER_SQS_QUEUE_URL      = aws_sqs_queue.ml_worker.url
      ML_WORKER_BATCH_SIZE         = "1"
      ML_WORKER_WAIT_TIME          = "20"
      ML_WORKER_VISIBILITY_TIMEOUT = "300"
      POSTGRES_SERVER              = var.db_host
      POSTGRES_PORT                = tostring(var.db_port)
      POSTGRES_DB                  = var.db_name
    },
    var.inference_address == "" ? {} : { BRIDGE_INFERENCE = var.inference_address },
    var.settings,
  )
  inference = var.inference_address != "" ? null : {
    image       = coalesce(var.inference_image, "${var.ecr_repository_url}/lamina-inference-cpu:${var.image_tag}")
    environment = merge({ INFERENCE_SERVICES = "labs" }, var.inference_environment)
    memory      = 2048
  }
}

resource "aws_ecs_task_definition" "ml_worker" {
  family                   = local.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = "512"
  memory                   = "3072"
  execution_role_arn       = var.execution_role_arn
  task_role_arn            = var.task_role_arn
  container_definitions    = module.containers.container_definitions

  dynamic "volume" {
    for_each = module.containers.volumes
    content {
      name = volume.value
    }
  }

  tags = merge(local.tags, { Name = "${local.name}-task" })
}

resource "aws_ecs_service" "ml_worker" {
  #checkov:skip=CKV_AWS_333:No public address unless the caller's subnets have no other way out.
  name            = local.name
  cluster         = aws_ecs_cluster.ml_worker.id
  task_definition = aws_ecs_task_definition.ml_worker.arn
  desired_count   = local.min_capacity
  propagate_tags  = "SERVICE"

  network_configuration {
    subnets          = var.private_subnet_ids
    security_groups  = [aws_security_group.ml_worker.id]
    assign_public_ip = var.assign_public_ip
  }

  capacity_provider_strategy {
    capacity_provider = "FARGATE_SPOT"
    weight            = 100
    base              = 0
  }

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  # Tasks that work are protected, and outlive the deployment until their jobs have ended.
  deployment_minimum_healthy_percent = 0
  deployment_maximum_percent         = 200

  lifecycle {
    ignore_changes = [desired_count]
  }

  tags       = merge(local.tags, { Name = "${local.name}-service" })
  depends_on = [aws_ecs_cluster_capacity_providers.ml_worker]
}

resource "aws_security_group" "ml_worker" {
  name_prefix = "${local.name}-"
  description = "Security group for ML Worker Fargate tasks"
  vpc_id      = var.vpc_id

  egress {
    #checkov:skip=CKV_AWS_382:SQS, SSM, the registry and the database have no fixed addresses; nothing may come in.
    description = "SQS, SSM, the registry, the database"
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }

  lifecycle {
    create_before_destroy = true
  }

  tags = merge(local.tags, { Name = "${local.name}-sg" })
}
