# The card platform's OCR worker: a bridge that always reads Redis, and GPUs that come and go with what waits there.
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
  description = "The inference server's image for GPUs, by digest."
  type        = string
}

variable "access" {
  description = "ARNs of the secrets of the inference server: certificate, key, tokens; of the bridge: ca and token."
  type = object({
    certificate = string
    key         = string
    tokens      = string
    ca          = string
    token       = string
  })
}

module "worker" {
  source = "../../modules/ocr_worker"

  vpc_id           = var.vpc_id
  subnet_ids       = var.subnet_ids
  image            = var.bridge_image
  inference_image  = var.inference_image
  access           = var.access
  optional_secrets = { BULI2_API_KEY = "buli2-api-key" }
  instance_types   = ["g5.xlarge", "g6.xlarge", "g4dn.xlarge"]
  alarm_actions    = var.alarm_topic_arns
}

output "bridge_security_group_id" {
  description = "For Redis and PostgreSQL to let in."
  value       = module.worker.bridge_security_group_id
}
