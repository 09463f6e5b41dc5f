variable "name" {
  description = "The service, its roles, its log group and its alarms."
  type        = string
  default     = "wsi-worker"
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
  description = "The platform's bucket: slides under wsi/, results under results/."
  type        = string
}

variable "bucket_kms_key_arn" {
  description = "The key that the bucket is encrypted with, where it is the customer's own."
  type        = string
  default     = null
}

variable "queue_name" {
  description = "The queue that the platform's requests come to. With one of its own beside the old worker's both receive every request."
  type        = string
  default     = "WsiAnalysisWorker"
}

variable "plain_queue" {
  description = "Whether wsi-jobs-in takes plain requests too, and wsi-jobs-out their answers."
  type        = bool
  default     = true
}

variable "create_topics" {
  description = "Whether the three topics are made here; false where MassTransit has made them."
  type        = bool
  default     = true
}

variable "topic_kms_key" {
  description = "The key that the topics are encrypted with: AWS' own, or the ARN of the customer's, which the bridge may then use."
  type        = string
  default     = "alias/aws/sns"

  validation {
    condition     = var.topic_kms_key == "alias/aws/sns" || can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/.+$", var.topic_kms_key))
    error_message = "topic_kms_key: expected alias/aws/sns, or the ARN of a key such as arn:aws:kms:eu-west-1:123456789012:key/…; rights are for keys, not for aliases."
  }
}

variable "image" {
  description = "The bridge's image, from Dockerfile.bridge. Pin it by digest."
  type        = string
}

variable "database_secret" {
  description = "ARN of the secret that holds BRIDGE_DATABASE, the ledger's PostgreSQL."
  type        = string
}

variable "cluster" {
  description = "The ECS cluster, such as that of gpu_inference; null makes one."
  type = object({
    name = string
    arn  = string
  })
  default = null
}

variable "inference" {
  description = "An inference server in each task, on its processors; null for the one at inference_address."
  type = object({
    image       = string
    environment = optional(map(string), {})
    memory      = number
  })
  default = null
}

variable "inference_address" {
  description = "host:port of the inference servers, such as the output address of gpu_inference."
  type        = string
  default     = ""

  validation {
    condition     = (var.inference_address == "") == (var.inference != null)
    error_message = "inference_address: name it, or give inference for a server in each task; one of the two."
  }
}

variable "inference_service" {
  description = "The ECS service of those servers, for the share of fallbacks."
  type        = string
  default     = ""
}

variable "cpu" {
  description = "Processor units of a task; with a server in it several thousand."
  type        = number
  default     = 256
}

variable "memory" {
  description = "MiB of a task."
  type        = number
  default     = 512
}

variable "disk_gib" {
  description = "GiB of a task's disk, 20 to 200. A server in the task copies slides there that it cannot read in place, such as NDPI and MRXS: at most this less 8 at a time."
  type        = number
  default     = 20

  validation {
    condition     = var.disk_gib >= 20 && var.disk_gib <= 200
    error_message = "disk_gib: expected 20 to 200, as Fargate has."
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
  default     = 5
}

variable "target_backlog" {
  description = "Requests that may wait for each task."
  type        = number
  default     = 2
}

variable "concurrency" {
  description = "Slides at once of one task."
  type        = number
  default     = 2
}

variable "settings" {
  description = "More settings of the bridge, such as BRIDGE_WSI_ANALYSIS or BRIDGE_INFERENCE_TLS."
  type        = map(string)
  default     = {}
}

variable "secrets" {
  description = "More settings that are secret, such as BRIDGE_INFERENCE_TOKEN, by ARN."
  type        = map(string)
  default     = {}
}

variable "files" {
  description = "Secret files in /run/lamina, such as ca.crt, by ARN."
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
