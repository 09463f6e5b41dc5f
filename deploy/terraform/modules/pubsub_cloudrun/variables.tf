variable "project" {
  description = "The project."
  type        = string
}

variable "region" {
  description = "The region of Cloud Run, such as europe-west1."
  type        = string
}

variable "name" {
  description = "The service of Cloud Run and its accounts; at most 24 characters."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{3,22}[a-z0-9]$", var.name))
    error_message = "name: expected 5 to 24 small letters, digits and dashes, as an account's name allows."
  }
}

variable "topic" {
  description = "The topic of jobs."
  type        = string
}

variable "create_topic" {
  description = "Whether it is made here; false where the platform has made it."
  type        = bool
  default     = true
}

variable "subscription" {
  description = "The subscription; null for the topic's name with -sub."
  type        = string
  default     = null
}

variable "create_subscription" {
  description = "Whether it is made here, with its dead letters; false where the platform's own stack has made it, which then has its say in both. Such a stack should allow 100 deliveries."
  type        = bool
  default     = true

  validation {
    condition     = var.create_subscription || var.delivery == "pull"
    error_message = "create_subscription: expected true for pushes: where they go and by whose token is the subscription's to say."
  }
}

variable "results_topic" {
  description = "The topic of results that name no other place; empty for none."
  type        = string
  default     = ""
}

variable "dead_letter_topic" {
  description = "The topic of dead letters; null for the topic's name with -dead-letter."
  type        = string
  default     = null
}

variable "max_delivery_attempts" {
  description = "Deliveries after which Pub/Sub gives a message up, 5 to 100. It counts interruptions too, the bridge's ledger does not: leave it at the most."
  type        = number
  default     = 100

  validation {
    condition     = var.max_delivery_attempts >= 5 && var.max_delivery_attempts <= 100
    error_message = "max_delivery_attempts: expected 5 to 100, as Pub/Sub allows."
  }
}

variable "ack_deadline_seconds" {
  description = "How long a message is leased before the bridge renews that."
  type        = number
  default     = 600

  validation {
    condition     = var.ack_deadline_seconds >= 10 && var.ack_deadline_seconds <= 600
    error_message = "ack_deadline_seconds: expected 10 to 600, as Pub/Sub allows."
  }
}

variable "delivery" {
  description = "pull: a worker asks for jobs; push: Pub/Sub brings them, and they are kept in the bridge's database until they are done."
  type        = string
  default     = "pull"

  validation {
    condition     = contains(["pull", "push"], var.delivery)
    error_message = "delivery: expected pull or push."
  }
}

variable "image" {
  description = "The bridge's image, from Dockerfile.bridge with REQUIREMENTS=bridge-all. Pin it by digest."
  type        = string
}

variable "environment" {
  description = "The bridge's settings: BRIDGE_… and the names of the worker that it replaces."
  type        = map(string)
  default     = {}
}

variable "secrets" {
  description = "Settings that are secret, by the name of their secret in Secret Manager; the newest version is read."
  type        = map(string)
  default     = {}
}

variable "cloud_sql_instance" {
  description = "project:region:instance that the worker may connect to; empty for none."
  type        = string
  default     = ""

  validation {
    condition     = var.cloud_sql_instance == "" || length(split(":", var.cloud_sql_instance)) == 3
    error_message = "cloud_sql_instance: expected project:region:instance, as `gcloud sql instances describe` tells it in connectionName."
  }
}

variable "min_instances" {
  description = "Fewest instances. Cloud Run does not see what waits in a subscription that is pulled, and takes idle instances away: 0 stops a worker that pulls, and leaves jobs that were pushed and cut off to the next push."
  type        = number
  default     = 1
}

variable "max_instances" {
  description = "Most instances."
  type        = number
  default     = 3

  validation {
    condition     = var.max_instances >= 1 && var.max_instances >= var.min_instances
    error_message = "max_instances: expected at least 1, and at least min_instances (${var.min_instances})."
  }
}

variable "cpu" {
  description = "Cores of an instance."
  type        = string
  default     = "2"
}

variable "memory" {
  description = "Memory of an instance."
  type        = string
  default     = "4Gi"
}

variable "network" {
  description = "VPC and subnet that the worker reaches databases and inference servers by; null for none."
  type = object({
    network    = string
    subnetwork = string
  })
  default = null
}

variable "thresholds" {
  description = "When the alerts rise; those that are left out are as in alerts.tf."
  type        = map(number)
  default     = {}

  validation {
    condition = length(setsubtract(keys(var.thresholds), [
      "error_percent_warning", "error_percent_critical", "error_least_jobs", "backlog", "oldest_seconds", "p95_seconds", "silent_minutes",
      "restarts", "fallback_percent", "fallback_least",
    ])) == 0
    error_message = "thresholds: expected error_percent_warning, error_percent_critical, error_least_jobs, backlog, oldest_seconds, p95_seconds, silent_minutes, restarts, fallback_percent, fallback_least."
  }
}

variable "notification_channels" {
  description = "Channels of Cloud Monitoring that alerts go to."
  type        = list(string)
  default     = []
}
