output "alarm_arn" {
  description = "The alarm."
  value       = aws_cloudwatch_metric_alarm.restarts.arn
}
