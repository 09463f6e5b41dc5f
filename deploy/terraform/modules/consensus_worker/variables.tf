variable "project" {
  description = "The project."
  type        = string
}

variable "region" {
  description = "The region of Cloud Run."
  type        = string
}

variable "image" {
  description = "The bridge's image, from Dockerfile.bridge with REQUIREMENTS=bridge-all. Pin it by digest."
  type        = string
}

variable "name" {
  description = "The service of Cloud Run."
  type        = string
  default     = "consensus-worker"
}

variable "topic" {
  description = "The topic of runs: PUBSUB_TOPIC."
  type        = string
  default     = "consensus-engine-jobs"
}

variable "create_topic" {
  description = "Whether it is made here; false beside the platform's own stack."
  type        = bool
  default     = true
}

variable "subscription" {
  description = "The subscription: PUBSUB_SUBSCRIPTION. One of its own beside the old worker's gets every run too."
  type        = string
  default     = "consensus-engine-jobs-sub"
}

variable "create_subscription" {
  description = "Whether it is made here, with its dead letters; false beside the platform's own stack, which has made both."
  type        = bool
  default     = true
}

variable "cloud_sql_instance" {
  description = "DB_INSTANCE_CONNECTION_NAME."
  type        = string
}

variable "database" {
  description = "DB_NAME."
  type        = string
  default     = "consensus_engine"
}

variable "database_user" {
  description = "DB_USER; the worker signs in by IAM where there is no secret of its password."
  type        = string
  default     = null
}

variable "database_password_secret" {
  description = "The secret that holds DB_PASSWORD; empty to sign in by IAM."
  type        = string
  default     = ""
}

variable "openai_key_secret" {
  description = "The secret that holds OPENAI_API_KEY."
  type        = string
}

variable "concurrency" {
  description = "Runs at once of one instance: WORKER_MAX_CONCURRENCY."
  type        = number
  default     = 10
}

variable "min_instances" {
  description = "Fewest instances."
  type        = number
  default     = 1
}

variable "max_instances" {
  description = "Most instances."
  type        = number
  default     = 3
}

variable "max_delivery_attempts" {
  description = "Deliveries after which Pub/Sub gives a run up."
  type        = number
  default     = 100
}

variable "settings" {
  description = "More settings of the worker: EXPAND_MODEL, BRIDGE_LLM_…, and so on."
  type        = map(string)
  default     = {}
}

variable "network" {
  description = "VPC and subnet of the worker; null for none."
  type = object({
    network    = string
    subnetwork = string
  })
  default = null
}

variable "notification_channels" {
  description = "Channels of Cloud Monitoring that alerts go to."
  type        = list(string)
  default     = []
}

variable "thresholds" {
  description = "When the alerts rise; see the module pubsub_cloudrun."
  type        = map(number)
  default     = {}
}
