# The whole-slide platform's worker: bridges on Fargate Spot and GPUs, both of them gone while no slide waits.
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

variable "bucket" {
  description = "The platform's bucket."
  type        = string
}

variable "database_secret" {
  description = "ARN of the secret that holds BRIDGE_DATABASE."
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

module "servers" {
  source = "../../modules/gpu_inference"

  name          = "slides"
  vpc_id        = var.vpc_id
  subnet_ids    = var.subnet_ids
  image         = var.inference_image
  environment   = merge({ INFERENCE_SERVICES = "slides" }, module.worker.server_settings)
  task_policy   = module.worker.server_policy
  waiting       = module.worker.waiting
  working       = module.worker.working
  concurrency   = 2
  alarm_actions = var.alarm_topic_arns
  access = {
    certificate = var.access.certificate
    key         = var.access.key
    tokens      = var.access.tokens
  }
  client_security_group_ids = { bridge = module.worker.security_group_id }
}

module "worker" {
  source = "../../modules/wsi_worker"

  vpc_id            = var.vpc_id
  subnet_ids        = var.subnet_ids
  bucket            = var.bucket
  image             = var.bridge_image
  database_secret   = var.database_secret
  cluster           = module.servers.cluster
  inference_address = module.servers.address
  inference_service = module.servers.service_name
  alarm_actions     = var.alarm_topic_arns
  settings = {
    BRIDGE_INFERENCE_TLS    = "true"
    BRIDGE_INFERENCE_TLS_CA = "/run/lamina/ca.crt"
  }
  secrets = { BRIDGE_INFERENCE_TOKEN = var.access.token }
  files   = { "ca.crt" = var.access.ca }
}

output "queue_url" {
  description = "The queue of requests."
  value       = module.worker.queue_url
}

output "topic_arns" {
  description = "The topics of events."
  value       = module.worker.topic_arns
}
