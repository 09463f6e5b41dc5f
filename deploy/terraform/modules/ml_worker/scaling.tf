locals {
  # Rollups alone leave the queue to others: more of them would not shorten it.
  reads = var.worker_mode != "aggregation"
  # At night the fewest are none, except of rollups alone: nothing would wake them.
  scheduled    = var.enable_scheduled_scaling && local.reads
  may_rest     = local.min_capacity == 0 || local.scheduled
  max_capacity = max(local.min_capacity, var.max_capacity)

  queue = { QueueName = aws_sqs_queue.ml_worker.name }
  waiting = [{
    namespace  = "AWS/SQS"
    name       = "ApproximateNumberOfMessagesVisible"
    dimensions = local.queue
  }]
}

module "scaling" {
  source = "../queue_scaling"

  name           = local.name
  cluster_name   = aws_ecs_cluster.ml_worker.name
  service_name   = aws_ecs_service.ml_worker.name
  min_capacity   = local.min_capacity
  max_capacity   = local.max_capacity
  follow_queues  = local.reads
  may_rest       = local.may_rest
  target_backlog = var.target_queue_depth
  # As the stack that is replaced has it.
  scale_out_cooldown = 60
  waiting            = local.waiting
  working = [{
    namespace  = "AWS/SQS"
    name       = "ApproximateNumberOfMessagesNotVisible"
    dimensions = local.queue
  }]
}

# A worker that runs asks for messages, and so keeps the queue awake by itself.
module "awake" {
  source = "../queue_awake"
  count  = local.may_rest ? 1 : 0

  name      = local.name
  queue_arn = aws_sqs_queue.ml_worker.arn
  queue_url = aws_sqs_queue.ml_worker.url
  tags      = { Awake = "true" }
}

moved {
  from = aws_appautoscaling_target.ml_worker
  to   = module.scaling.aws_appautoscaling_target.service
}

moved {
  from = aws_appautoscaling_policy.ml_worker_scale_up
  to   = module.scaling.aws_appautoscaling_policy.backlog[0]
}

resource "aws_appautoscaling_scheduled_action" "ml_worker_scale_down_night" {
  count = local.scheduled ? 1 : 0

  name               = "${local.name}-scale-down-night"
  service_namespace  = "ecs"
  resource_id        = module.scaling.resource_id
  scalable_dimension = "ecs:service:DesiredCount"
  schedule           = "cron(0 2 * * ? *)"

  scalable_target_action {
    min_capacity = 0
    max_capacity = local.max_capacity
  }
}

resource "aws_appautoscaling_scheduled_action" "ml_worker_scale_up_morning" {
  count = local.scheduled ? 1 : 0

  name               = "${local.name}-scale-up-morning"
  service_namespace  = "ecs"
  resource_id        = module.scaling.resource_id
  scalable_dimension = "ecs:service:DesiredCount"
  schedule           = "cron(0 8 * * ? *)"

  scalable_target_action {
    min_capacity = local.min_capacity
    max_capacity = local.max_capacity
  }
}

module "alarms" {
  source = "../worker_alarms"

  name           = local.name
  cluster_name   = aws_ecs_cluster.ml_worker.name
  cluster_arn    = aws_ecs_cluster.ml_worker.arn
  service_name   = local.name
  log_group_name = aws_cloudwatch_log_group.ml_worker.name
  waiting        = local.waiting
  alarm_actions  = var.alarm_actions
  thresholds     = var.thresholds

  dead_letter_queues = [aws_sqs_queue.ml_worker_dlq.name]
}
