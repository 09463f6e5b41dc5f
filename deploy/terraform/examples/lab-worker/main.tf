# The lab platform's worker: labs, vitals and nutrition, from SQS and from the tables, on Fargate Spot.
terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

provider "aws" {
  region = var.region
}

variable "region" {
  description = "The AWS region."
  type        = string
  default     = "us-east-1"
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets with NAT or VPC endpoints."
  type        = list(string)
}

variable "alarm_topic_arns" {
  description = "Topics of SNS that alarms are told to."
  type        = list(string)
  default     = []
}

variable "registry" {
  description = "The registry of lamina-bridge and lamina-inference-cpu."
  type        = string
}

variable "image_tag" {
  description = "Their tag."
  type        = string
}

variable "database_host" {
  description = "The platform's PostgreSQL server."
  type        = string
}

variable "roles" {
  description = "ARNs of the platform's roles."
  type = object({
    execution = string
    task      = string
    api       = string
  })
}

module "ml_worker" {
  source = "../../modules/ml_worker"

  environment          = "production"
  aws_region           = var.region
  vpc_id               = var.vpc_id
  private_subnet_ids   = var.subnet_ids
  ecr_repository_url   = var.registry
  image_tag            = var.image_tag
  execution_role_arn   = var.roles.execution
  task_role_arn        = var.roles.task
  api_role_arn         = var.roles.api
  db_host              = var.database_host
  db_name              = "zivohealth"
  ssm_parameter_prefix = "/zivohealth/production"
  worker_mode          = "both"
  min_capacity         = 1
  max_capacity         = 5
  alarm_actions        = var.alarm_topic_arns
}

output "queue_url" {
  description = "For the web service: ML_WORKER_SQS_QUEUE_URL."
  value       = module.ml_worker.sqs_queue_url
}

output "security_group_id" {
  description = "For the database to let in."
  value       = module.ml_worker.security_group_id
}
