variable "name" {
  description = "The service, its roles, its log group and its alarms."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9_-]{0,62}$", var.name))
    error_message = "name: expected at most 63 letters, digits, dashes and low lines."
  }
}

variable "vpc_id" {
  description = "The VPC of the tasks."
  type        = string
}

variable "subnet_ids" {
  description = "The subnets of the tasks."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "subnet_ids: expected at least one subnet, best one in each of two zones."
  }
}

variable "assign_public_ip" {
  description = "Whether tasks get public addresses, which they need in subnets with neither NAT nor VPC endpoints."
  type        = bool
  default     = false
}

variable "cluster" {
  description = "The ECS cluster, with Container Insights and the capacity provider of the tasks; null makes one."
  type = object({
    name = string
    arn  = string
  })
  default = null
}

variable "capacity_provider" {
  description = "FARGATE_SPOT or FARGATE."
  type        = string
  default     = "FARGATE_SPOT"

  validation {
    condition     = contains(["FARGATE_SPOT", "FARGATE"], var.capacity_provider)
    error_message = "capacity_provider: expected FARGATE_SPOT or FARGATE."
  }
}

variable "cpu" {
  description = "Processor units of a task; 1024 are one core."
  type        = number
  default     = 256
}

variable "memory" {
  description = "MiB of a task."
  type        = number
  default     = 512

  validation {
    condition = (
      var.cpu == 256 ? contains([512, 1024, 2048], var.memory) : try(
        var.memory % 1024 == 0
        && var.memory >= { "512" = 1024, "1024" = 2048, "2048" = 4096, "4096" = 8192, "8192" = 16384, "16384" = 32768 }[tostring(var.cpu)]
        && var.memory <= { "512" = 4096, "1024" = 8192, "2048" = 16384, "4096" = 30720, "8192" = 61440, "16384" = 122880 }[tostring(var.cpu)],
        false
      )
    )
    error_message = "memory: Fargate has no task of ${var.memory} MiB with a cpu of ${var.cpu}; expected 2 to 8 times as many MiB in whole GiB, such as cpu 512 with memory 1024 to 4096, or cpu 256 with 512."
  }
}

variable "image" {
  description = "The bridge's image, from Dockerfile.bridge. Pin it by digest."
  type        = string
}

variable "environment" {
  description = "The bridge's settings."
  type        = map(string)
}

variable "secrets" {
  description = "Settings that are secret, by the ARN of their parameter of SSM or secret of Secrets Manager."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for arn in values(var.secrets) : can(regex("^arn:[^:]+:(ssm|secretsmanager):", arn))])
    error_message = "secrets: expected ARNs of parameters of SSM or secrets of Secrets Manager; ${join(", ", sort([for name, arn in var.secrets : name if !can(regex("^arn:[^:]+:(ssm|secretsmanager):", arn))]))} have none."
  }
}

variable "files" {
  description = "Files in /run/lamina whose content is secret, by the same."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for arn in values(var.files) : can(regex("^arn:[^:]+:(ssm|secretsmanager):", arn))])
    error_message = "files: expected ARNs of parameters of SSM or secrets of Secrets Manager, by the names of the files."
  }
}

variable "kms_key_arns" {
  description = "Keys that those secrets are encrypted with, where they are the customer's own."
  type        = list(string)
  default     = []
}

variable "inference" {
  description = "An inference server in each task, on its processors; null for one elsewhere."
  type = object({
    image       = string
    environment = optional(map(string), {})
    memory      = number
  })
  default = null
}

variable "task_policy" {
  description = "What the bridge may do, as a policy in JSON, beside protecting its task and telling its metrics; null for nothing."
  type        = string
  default     = null
}

variable "scale" {
  description = "Whether the queue says how many tasks there are; else there are always min_capacity."
  type        = bool
  default     = true
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
  description = "Messages that may wait for each task; more of them add tasks."
  type        = number
  default     = 4
}

variable "concurrency" {
  description = "Jobs at once of one task: BRIDGE_CONCURRENCY."
  type        = number
  default     = 2

  validation {
    condition     = var.concurrency >= 1
    error_message = "concurrency: expected at least 1 job at once."
  }
}

variable "waiting" {
  description = "Metrics whose sum is what waits."
  type = list(object({
    namespace  = string
    name       = string
    dimensions = map(string)
    statistic  = optional(string, "Maximum")
  }))
}

variable "working" {
  description = "Metrics whose sum is what is being worked on."
  type = list(object({
    namespace  = string
    name       = string
    dimensions = map(string)
    statistic  = optional(string, "Maximum")
  }))
}

variable "dead_letter_queues" {
  description = "Queues of SQS that are to be empty, by name."
  type        = list(string)
  default     = []
}

variable "inference_service" {
  description = "The ECS service of the inference server in the same cluster, for the share of fallbacks; empty for none."
  type        = string
  default     = ""
}

variable "stop_seconds" {
  description = "Seconds between SIGTERM and SIGKILL, at most 120."
  type        = number
  default     = 120
}

variable "log_days" {
  description = "Days that logs are kept."
  type        = number
  default     = 30
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

variable "collector_image" {
  description = "The collector of metrics."
  type        = string
  default     = "public.ecr.aws/aws-observability/aws-otel-collector:v0.43.1"
}

variable "shell_image" {
  description = "A small image with sh."
  type        = string
  default     = "public.ecr.aws/docker/library/busybox:1.37"
}
