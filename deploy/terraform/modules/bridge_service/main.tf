# A bridge as a service of ECS on Fargate: its task, its rights, its scale and its alarms.
data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  region       = data.aws_region.current.region
  cluster_name = var.cluster == null ? var.name : var.cluster.name
  cluster_arn  = var.cluster == null ? one(aws_ecs_cluster.own[*].arn) : var.cluster.arn
  task_arns    = "arn:${data.aws_partition.current.partition}:ecs:${local.region}:${data.aws_caller_identity.current.account_id}:task/${local.cluster_name}/*"
}

resource "aws_ecs_cluster" "own" {
  count = var.cluster == null ? 1 : 0

  name = var.name

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_ecs_cluster_capacity_providers" "own" {
  count = var.cluster == null ? 1 : 0

  cluster_name       = aws_ecs_cluster.own[0].name
  capacity_providers = ["FARGATE_SPOT", "FARGATE"]
}

resource "aws_cloudwatch_log_group" "bridge" {
  #checkov:skip=CKV_AWS_158:Logs carry ids and no personal data; CloudWatch encrypts them with its own key.
  #checkov:skip=CKV_AWS_338:A month by default: the ledger, and not the log, is the record of the jobs.
  name              = "/ecs/${var.name}"
  retention_in_days = var.log_days
}

module "containers" {
  source = "../bridge_containers"

  region          = local.region
  cluster_name    = local.cluster_name
  service_name    = var.name
  log_group_name  = aws_cloudwatch_log_group.bridge.name
  image           = var.image
  collector_image = var.collector_image
  shell_image     = var.shell_image
  stop_seconds    = var.stop_seconds
  disk_gib        = var.disk_gib
  environment     = merge({ BRIDGE_CONCURRENCY = tostring(var.concurrency) }, var.environment)
  secrets         = var.secrets
  files           = var.files
  inference       = var.inference
}

resource "aws_ecs_task_definition" "bridge" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = tostring(var.cpu)
  memory                   = tostring(var.memory)
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  container_definitions    = module.containers.container_definitions

  # 20 GiB are Fargate's own, and cannot be asked for.
  dynamic "ephemeral_storage" {
    for_each = var.disk_gib > 20 ? [var.disk_gib] : []
    content {
      size_in_gib = ephemeral_storage.value
    }
  }

  dynamic "volume" {
    for_each = module.containers.volumes
    content {
      name = volume.value
    }
  }
}

resource "aws_ecs_service" "bridge" {
  #checkov:skip=CKV_AWS_333:No public address unless the caller's subnets have no other way out.
  name            = var.name
  cluster         = local.cluster_arn
  task_definition = aws_ecs_task_definition.bridge.arn
  desired_count   = var.min_capacity
  propagate_tags  = "SERVICE"

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [aws_security_group.bridge.id]
    assign_public_ip = var.assign_public_ip
  }

  capacity_provider_strategy {
    capacity_provider = var.capacity_provider
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

  depends_on = [aws_ecs_cluster_capacity_providers.own]
}

resource "aws_security_group" "bridge" {
  name_prefix = "${var.name}-"
  description = "A bridge: nothing may come in"
  vpc_id      = var.vpc_id

  egress {
    #checkov:skip=CKV_AWS_382:Queues, stores, registry and database have no fixed addresses; nothing may come in.
    description = "Queues, stores, registry, database, inference server"
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }

  lifecycle {
    create_before_destroy = true
  }
}

module "scaling" {
  source = "../queue_scaling"
  count  = var.scale ? 1 : 0

  name           = var.name
  cluster_name   = local.cluster_name
  service_name   = aws_ecs_service.bridge.name
  min_capacity   = var.min_capacity
  max_capacity   = var.max_capacity
  target_backlog = var.target_backlog
  concurrency    = var.concurrency
  waiting        = var.waiting
  working        = var.working
}

module "alarms" {
  source = "../worker_alarms"

  name               = var.name
  cluster_name       = local.cluster_name
  cluster_arn        = local.cluster_arn
  service_name       = var.name
  log_group_name     = aws_cloudwatch_log_group.bridge.name
  waiting            = var.waiting
  dead_letter_queues = var.dead_letter_queues
  inference_service  = var.inference_service
  alarm_actions      = var.alarm_actions
  thresholds         = var.thresholds
}
