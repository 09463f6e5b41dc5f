variable "name" {
  description = "The queue, the service, its roles, its log group and its alarms."
  type        = string
}

variable "vpc_id" {
  description = "The VPC of the tasks."
  type        = string
}

variable "subnet_ids" {
  description = "The subnets of the tasks."
  type        = list(string)
}

variable "assign_public_ip" {
  description = "Whether tasks get public addresses, which they need in subnets with neither NAT nor VPC endpoints."
  type        = bool
  default     = false
}

variable "bucket" {
  description = "The bucket of the documents and the results."
  type        = string
}

variable "bucket_kms_key_arn" {
  description = "The key that the bucket is encrypted with, where it is the customer's own."
  type        = string
  default     = null
}

variable "documents_prefix" {
  description = "Where the documents lie in it, with a / at the end."
  type        = string
  default     = "documents/"

  validation {
    condition     = endswith(var.documents_prefix, "/")
    error_message = "documents_prefix: expected a / at the end, such as documents/: rights and reading are for what lies under it."
  }
}

variable "results_prefix" {
  description = "Where the results go, with a / at the end."
  type        = string
  default     = "results/"

  validation {
    condition     = endswith(var.results_prefix, "/")
    error_message = "results_prefix: expected a / at the end, such as results/."
  }
}

variable "image" {
  description = "The bridge's image, from Dockerfile.bridge. Pin it by digest."
  type        = string
}

variable "inference_image" {
  description = "The inference server's image for processors, one in each task. Pin it by digest."
  type        = string
}

variable "database_secret" {
  description = "ARN of the secret that holds BRIDGE_DATABASE, the ledger's PostgreSQL."
  type        = string
}

variable "cpu" {
  description = "Processor units of a task; 1024 are one core."
  type        = number
  default     = 2048
}

variable "memory" {
  description = "MiB of a task; all but 1024 are the server's."
  type        = number
  default     = 5120

  validation {
    condition     = var.memory >= 4096
    error_message = "memory: expected at least 4096 MiB, of which 1024 are not the server's."
  }
}

variable "min_capacity" {
  description = "Fewest tasks."
  type        = number
  default     = 0
}

variable "max_capacity" {
  description = "Most tasks."
  type        = number
  default     = 10
}

variable "target_backlog" {
  description = "Documents that may wait for each task."
  type        = number
  default     = 10
}

variable "concurrency" {
  description = "Documents at once of one task."
  type        = number
  default     = 4
}

variable "settings" {
  description = "More settings of the bridge."
  type        = map(string)
  default     = {}
}

variable "alarm_actions" {
  description = "ARNs that are told when an alarm rises or falls."
  type        = list(string)
  default     = []
}

variable "thresholds" {
  description = "When the alarms rise; see the module worker_alarms."
  type        = map(number)
  default     = {}
}

variable "inference_environment" {
  description = "More settings of the inference server in each task: INFERENCE_…"
  type        = map(string)
  default     = {}
}
