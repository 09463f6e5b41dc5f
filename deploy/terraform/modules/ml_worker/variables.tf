# The variables of the stack that this module replaces: the same names and defaults. Ours are in options.tf, all of them optional.

variable "environment" {
  description = "Begins every name: {environment}-ml-worker."
  type        = string
}

variable "aws_region" {
  description = "The AWS region."
  type        = string
  default     = "us-east-1"
}

variable "vpc_id" {
  description = "The VPC of the tasks."
  type        = string
}

variable "private_subnet_ids" {
  description = "The subnets of the tasks."
  type        = list(string)

  validation {
    condition     = length(var.private_subnet_ids) > 0
    error_message = "private_subnet_ids: expected at least one subnet."
  }
}

variable "ecr_repository_url" {
  description = "The registry that lamina-bridge and lamina-inference-cpu lie in, without a name of an image."
  type        = string
}

variable "image_tag" {
  description = "The tag of both images."
  type        = string
  default     = "latest"
}

variable "execution_role_arn" {
  description = "The role that starts tasks: pulls images, writes logs, reads the secrets of {ssm_parameter_prefix}."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:iam::[0-9]{12}:role/.+$", var.execution_role_arn))
    error_message = "execution_role_arn: expected the ARN of the role that starts tasks, such as arn:aws:iam::123456789012:role/name."
  }
}

variable "task_role_arn" {
  description = "The role of the worker; the module gives it the rights that it needs, and no others."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:iam::[0-9]{12}:role/.+$", var.task_role_arn))
    error_message = "task_role_arn: expected the ARN of the role of the worker, such as arn:aws:iam::123456789012:role/name."
  }
}

variable "api_role_arn" {
  description = "The role of the web service that sends jobs."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:iam::[0-9]{12}:role/.+$", var.api_role_arn))
    error_message = "api_role_arn: expected the ARN of the role of the web service, such as arn:aws:iam::123456789012:role/name."
  }
}

variable "db_host" {
  description = "The PostgreSQL server."
  type        = string
}

variable "db_port" {
  description = "Its port."
  type        = number
  default     = 5432

  validation {
    condition     = var.db_port >= 1 && var.db_port <= 65535
    error_message = "db_port: expected a port, 1 to 65535."
  }
}

variable "db_name" {
  description = "The database."
  type        = string
}

variable "ssm_parameter_prefix" {
  description = "Begins the names of parameters: {prefix}/db/user and {prefix}/db/password are read, {prefix}/ml_worker/… are written."
  type        = string
  default     = "/zivohealth/production"

  validation {
    condition     = can(regex("^/[^/].*[^/]$", var.ssm_parameter_prefix))
    error_message = "ssm_parameter_prefix: expected a path such as /zivohealth/production, without a / at its end."
  }
}

variable "min_capacity" {
  description = "Fewest tasks. Nothing wakes a worker for rows that wait in the tables, so that in the modes aggregation and both at least one runs."
  type        = number
  default     = 0
}

variable "max_capacity" {
  description = "Most tasks."
  type        = number
  default     = 3
}

variable "target_queue_depth" {
  description = "Messages that may wait for each task; more of them add tasks."
  type        = number
  default     = 0.5

  validation {
    condition     = var.target_queue_depth > 0
    error_message = "target_queue_depth: expected more than 0."
  }
}

variable "enable_scheduled_scaling" {
  description = "Let the service go to zero at 02:00 UTC, and back to min_capacity at 08:00."
  type        = bool
  default     = false
}

variable "worker_mode" {
  description = "sqs: jobs of the queue; aggregation: rollups of what waits in the tables; both."
  type        = string
  default     = "aggregation"

  validation {
    condition     = contains(["sqs", "aggregation", "both"], var.worker_mode)
    error_message = "worker_mode: expected sqs, aggregation or both."
  }
}
