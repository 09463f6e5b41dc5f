output "alarm_arns" {
  description = "All alarms."
  value = concat(
    [for alarm in aws_cloudwatch_metric_alarm.errors : alarm.arn],
    [for alarm in aws_cloudwatch_metric_alarm.dead_letters : alarm.arn],
    [
      aws_cloudwatch_metric_alarm.backlog.arn,
      aws_cloudwatch_metric_alarm.given_up.arn,
      aws_cloudwatch_metric_alarm.ledger.arn,
      aws_cloudwatch_metric_alarm.slow.arn,
      aws_cloudwatch_metric_alarm.put_off.arn,
      aws_cloudwatch_metric_alarm.silent.arn,
      module.exits.alarm_arn,
      aws_cloudwatch_metric_alarm.fallbacks.arn,
    ],
  )
}
