# Documents of a bucket, asked for by SQS, read on processors of Fargate Spot; nothing runs while nothing waits.
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

variable "bridge_image" {
  description = "The bridge's image, by digest."
  type        = string
}

variable "inference_image" {
  description = "The inference server's image for processors, by digest."
  type        = string
}

variable "bucket" {
  description = "The bucket of documents and results."
  type        = string
}

variable "database_secret" {
  description = "ARN of the secret that holds BRIDGE_DATABASE."
  type        = string
}

module "worker" {
  source = "../../modules/documents_worker"

  name            = "documents"
  vpc_id          = var.vpc_id
  subnet_ids      = var.subnet_ids
  bucket          = var.bucket
  image           = var.bridge_image
  inference_image = var.inference_image
  database_secret = var.database_secret
  alarm_actions   = var.alarm_topic_arns
}

output "queue_url" {
  description = "The queue that documents are asked for by."
  value       = module.worker.queue_url
}

output "security_group_id" {
  description = "For the database to let in."
  value       = module.worker.security_group_id
}
