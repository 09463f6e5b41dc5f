# The consensus pipeline's worker: runs from Pub/Sub, on Cloud Run.
terraform {
  required_version = ">= 1.9"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.50, < 8.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}

variable "project" {
  description = "The project."
  type        = string
}

variable "region" {
  description = "The region of Cloud Run."
  type        = string
  default     = "europe-west1"
}

variable "bridge_image" {
  description = "The bridge's image with REQUIREMENTS=bridge-all, by digest."
  type        = string
}

variable "cloud_sql_instance" {
  description = "project:region:instance of the platform's database."
  type        = string
}

variable "openai_key_secret" {
  description = "The secret that holds the language model's key."
  type        = string
  default     = "openai-api-key"
}

variable "notification_channels" {
  description = "Channels of Cloud Monitoring that alerts go to."
  type        = list(string)
  default     = []
}

module "worker" {
  source = "../../modules/consensus_worker"

  project               = var.project
  region                = var.region
  image                 = var.bridge_image
  cloud_sql_instance    = var.cloud_sql_instance
  openai_key_secret     = var.openai_key_secret
  notification_channels = var.notification_channels
}

output "topic" {
  description = "For the web service: PUBSUB_TOPIC."
  value       = module.worker.topic
}

output "service_account" {
  description = "For the database to let in."
  value       = module.worker.service_account
}
