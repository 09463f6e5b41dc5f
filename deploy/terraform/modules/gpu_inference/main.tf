# The inference server on GPUs: a cluster of ECS whose instances come and go with its tasks, and a name that bridges find all servers by.
data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  region = data.aws_region.current.region
  # Bridges ask for this name again and again, and balance over what it means.
  namespace = "${var.name}.internal"
  address   = "inference.${local.namespace}:8001"
  tasks     = "${var.name}-inference"
}

resource "aws_ecs_cluster" "inference" {
  name = var.name

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_ecs_cluster_capacity_providers" "inference" {
  cluster_name       = aws_ecs_cluster.inference.name
  capacity_providers = ["FARGATE_SPOT", "FARGATE", aws_ecs_capacity_provider.gpu.name]
}

resource "aws_service_discovery_private_dns_namespace" "inference" {
  name        = local.namespace
  description = "Inference servers of ${var.name}"
  vpc         = var.vpc_id
}

resource "aws_service_discovery_service" "inference" {
  name = "inference"

  dns_config {
    namespace_id   = aws_service_discovery_private_dns_namespace.inference.id
    routing_policy = "MULTIVALUE"

    dns_records {
      type = "A"
      ttl  = 10
    }
  }

  health_check_custom_config {}
}

resource "aws_cloudwatch_log_group" "inference" {
  #checkov:skip=CKV_AWS_158:Logs carry no personal data; CloudWatch encrypts them with its own key.
  #checkov:skip=CKV_AWS_338:A month by default: a log is read when something has just happened.
  name              = "/ecs/${local.tasks}"
  retention_in_days = var.log_days
}

resource "aws_ecs_service" "inference" {
  name                   = local.tasks
  cluster                = aws_ecs_cluster.inference.id
  task_definition        = aws_ecs_task_definition.inference.arn
  desired_count          = var.min_capacity
  propagate_tags         = "SERVICE"
  enable_execute_command = false

  network_configuration {
    subnets         = var.subnet_ids
    security_groups = [aws_security_group.server.id]
  }

  capacity_provider_strategy {
    capacity_provider = aws_ecs_capacity_provider.gpu.name
    weight            = 100
    base              = 0
  }

  ordered_placement_strategy {
    type  = "spread"
    field = "attribute:ecs.availability-zone"
  }

  service_registries {
    registry_arn = aws_service_discovery_service.inference.arn
  }

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  # A new server must be ready before an old one drains; where there is but one GPU, it comes after it.
  deployment_minimum_healthy_percent = var.max_capacity > 1 ? 100 : 0
  deployment_maximum_percent         = 200

  lifecycle {
    ignore_changes = [desired_count]
  }

  depends_on = [aws_ecs_cluster_capacity_providers.inference]
}

resource "aws_security_group" "server" {
  name_prefix = "${local.tasks}-"
  description = "Inference servers: their clients may come in"
  vpc_id      = var.vpc_id

  egress {
    #checkov:skip=CKV_AWS_382:Stores and registry have no fixed addresses.
    description = "Stores, registry"
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = var.client_security_group_ids

  security_group_id            = aws_security_group.server.id
  referenced_security_group_id = each.value
  description                  = "gRPC from ${each.key}"
  ip_protocol                  = "tcp"
  from_port                    = 8001
  to_port                      = 8001
}

module "scaling" {
  source = "../queue_scaling"

  name           = local.tasks
  cluster_name   = aws_ecs_cluster.inference.name
  service_name   = aws_ecs_service.inference.name
  min_capacity   = var.min_capacity
  max_capacity   = var.max_capacity
  target_backlog = var.target_backlog
  concurrency    = var.concurrency
  waiting        = var.waiting
  working        = var.working

  scale_out_cooldown = var.scale_out_cooldown
  hold_while_working = var.hold_while_working
}

module "exits" {
  source = "../task_exits"

  name          = local.tasks
  cluster_arn   = aws_ecs_cluster.inference.arn
  service_name  = local.tasks
  most_exits    = var.most_exits
  alarm_actions = var.alarm_actions
}

resource "aws_cloudwatch_metric_alarm" "idle" {
  alarm_name          = "${local.tasks}-gpu-idle"
  alarm_description   = "Messages have waited for 10 minutes while GPUs that are paid for computed less than ${100 * var.idle_ratio} % of the time. Figures: /metrics and the queue."
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 1
  evaluation_periods  = 10
  datapoints_to_alarm = 10
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions

  dynamic "metric_query" {
    for_each = { for index, metric in var.waiting : "w${index}" => metric }
    content {
      id          = metric_query.key
      return_data = false
      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.name
        dimensions  = metric_query.value.dimensions
        stat        = metric_query.value.statistic
        period      = 60
      }
    }
  }
  metric_query {
    id          = "busy"
    return_data = false
    metric {
      namespace   = "Lamina"
      metric_name = "lamina_device_utilisation_ratio"
      dimensions  = { ClusterName = aws_ecs_cluster.inference.name, ServiceName = local.tasks }
      stat        = "Average"
      period      = 60
    }
  }
  # Without a server there is no figure, and no GPU that idles. A minute that is not told yet is as the one before.
  metric_query {
    id          = "idle"
    label       = "1 while messages wait and the GPUs idle"
    expression  = "IF((${join(" + ", [for index, metric in var.waiting : "FILL(FILL(w${index}, REPEAT), 0)"])}) > 0 AND FILL(FILL(busy, REPEAT), 1) < ${var.idle_ratio}, 1, 0)"
    return_data = true
  }
}
