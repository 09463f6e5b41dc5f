# How many tasks an ECS service has, by what waits and what is being worked on:
#
#   tasks = max(tasks that work, waiting / target_backlog), between min_capacity and max_capacity
#
# A minute that is not told yet is as the one before; queues that are left alone stop telling what they hold, and a service of no tasks
# may tell no count: what was not told at all is zero.
locals {
  waiting = { for index, metric in var.waiting : "w${index}" => metric }
  working = { for index, metric in var.working : "b${index}" => metric }

  told        = { for id in concat(keys(local.waiting), keys(local.working), ["desired"]) : id => "FILL(FILL(${id}, REPEAT), 0)" }
  waiting_sum = join(" + ", [for id in keys(local.waiting) : local.told[id]])
  working_sum = join(" + ", [for id in keys(local.working) : local.told[id]])

  # Tasks that have a job, at the least; or all of them while there is any, where a job cannot be seen to be one task's.
  busy_tasks = (
    var.hold_while_working
    ? "IF((${local.working_sum}) > 0, tasks, 0)"
    : "IF((${local.working_sum}) / ${var.concurrency} < tasks, (${local.working_sum}) / ${var.concurrency}, tasks)"
  )

  queues = merge(local.waiting, local.working)
  wakes  = var.follow_queues && (var.min_capacity == 0 || var.may_rest)

  # Of the service itself: the tasks that are wanted, whether they run yet or not. Container Insights tells them once a minute.
  desired = "DesiredTaskCount"
  service_dimensions = {
    ClusterName = var.cluster_name
    ServiceName = var.service_name
  }
}

resource "aws_appautoscaling_target" "service" {
  min_capacity       = var.min_capacity
  max_capacity       = var.max_capacity
  resource_id        = "service/${var.cluster_name}/${var.service_name}"
  scalable_dimension = "ecs:service:DesiredCount"
  service_namespace  = "ecs"
}

# From one task on, and back to none.
resource "aws_appautoscaling_policy" "backlog" {
  count = var.follow_queues ? 1 : 0

  name               = "${var.name}-backlog"
  policy_type        = "TargetTrackingScaling"
  resource_id        = aws_appautoscaling_target.service.resource_id
  scalable_dimension = aws_appautoscaling_target.service.scalable_dimension
  service_namespace  = aws_appautoscaling_target.service.service_namespace

  target_tracking_scaling_policy_configuration {
    target_value       = var.target_backlog
    scale_in_cooldown  = var.scale_in_cooldown
    scale_out_cooldown = var.scale_out_cooldown

    customized_metric_specification {
      dynamic "metrics" {
        for_each = local.queues
        content {
          id          = metrics.key
          return_data = false
          metric_stat {
            stat = metrics.value.statistic
            metric {
              namespace   = metrics.value.namespace
              metric_name = metrics.value.name
              dynamic "dimensions" {
                for_each = metrics.value.dimensions
                content {
                  name  = dimensions.key
                  value = dimensions.value
                }
              }
            }
          }
        }
      }
      metrics {
        id          = "desired"
        return_data = false
        metric_stat {
          stat = "Maximum"
          metric {
            namespace   = "ECS/ContainerInsights"
            metric_name = local.desired
            dynamic "dimensions" {
              for_each = local.service_dimensions
              content {
                name  = dimensions.key
                value = dimensions.value
              }
            }
          }
        }
      }
      # Target tracking multiplies the tasks that are wanted, so that these are what is divided by: by those that run already, tasks that
      # are still starting would be asked for once more. Nothing is divided by zero.
      metrics {
        id          = "tasks"
        expression  = local.told["desired"]
        return_data = false
      }
      metrics {
        id          = "backlog"
        expression  = "(${local.waiting_sum}) / (tasks + (tasks < 1))"
        return_data = false
      }
      # The share of tasks that work, on the scale of the target: all of them working asks for exactly as many.
      metrics {
        id          = "busy"
        expression  = "${var.target_backlog} * ${local.busy_tasks} / (tasks + (tasks < 1))"
        return_data = false
      }
      # While nobody tells of tasks the target itself: as many stay as there are.
      metrics {
        id          = "wanted"
        label       = "Backlog of a task"
        expression  = "IF(tasks < 1, ${var.target_backlog}, IF(backlog > busy, backlog, busy))"
        return_data = true
      }
    }
  }
}

# Target tracking multiplies what there is, and so never leaves zero: the first task is this policy's.
resource "aws_appautoscaling_policy" "wake" {
  count = local.wakes ? 1 : 0

  name               = "${var.name}-wake"
  policy_type        = "StepScaling"
  resource_id        = aws_appautoscaling_target.service.resource_id
  scalable_dimension = aws_appautoscaling_target.service.scalable_dimension
  service_namespace  = aws_appautoscaling_target.service.service_namespace

  step_scaling_policy_configuration {
    # One more, and not exactly one: where the counts of tasks fail to come this must never take tasks away.
    adjustment_type = "ChangeInCapacity"
    # Longer than the counts take to tell of the first.
    cooldown                = 300
    metric_aggregation_type = "Maximum"

    step_adjustment {
      metric_interval_lower_bound = 0
      scaling_adjustment          = 1
    }
  }
}

# What others hold counts too: a bridge that runs takes messages off the queue at once, and keeps them until its server comes.
resource "aws_cloudwatch_metric_alarm" "waiting_at_zero" {
  count = local.wakes ? 1 : 0

  alarm_name          = "${var.name}-waiting-at-zero"
  alarm_description   = "There are messages and no task is wanted: starts the first one. Not for people."
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_appautoscaling_policy.wake[0].arn]

  dynamic "metric_query" {
    for_each = local.queues
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
    id          = "desired"
    return_data = false
    metric {
      namespace   = "ECS/ContainerInsights"
      metric_name = local.desired
      dimensions  = local.service_dimensions
      stat        = "Maximum"
      period      = 60
    }
  }
  metric_query {
    id          = "waiting"
    label       = "Messages while no task is wanted"
    expression  = "IF(${local.told["desired"]} < 1, ${local.waiting_sum} + ${local.working_sum}, 0)"
    return_data = true
  }
}
