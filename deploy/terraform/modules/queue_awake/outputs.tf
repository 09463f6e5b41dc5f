output "schedule_arn" {
  description = "The schedule."
  value       = aws_scheduler_schedule.tag.arn
}
