variable "name" {
  description = "The cluster, the service, its roles and its alarms."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}$", var.name)) && !can(regex("^(aws|ecs|fargate)", var.name))
    error_message = "name: expected at most 31 small letters, digits and dashes, which neither aws, ecs nor fargate begins: it is part of a name of DNS and of a capacity provider."
  }
}

variable "vpc_id" {
  description = "The VPC of instances and tasks."
  type        = string
}

variable "subnet_ids" {
  description = "Their subnets, with NAT or VPC endpoints."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "subnet_ids: expected at least one subnet, best one in each of two zones."
  }
}

variable "image" {
  description = "The inference server's image, from Dockerfile.gpu. Pin it by digest."
  type        = string
}

variable "environment" {
  description = "More settings of the server: INFERENCE_…"
  type        = map(string)
  default     = {}
}

variable "task_policy" {
  description = "What the server may do, such as read slides in a bucket, as a policy in JSON; null for nothing."
  type        = string
  default     = null
}

variable "access" {
  description = "ARNs of the secrets that hold the server's certificate and key (PEM) and its file of tokens; null where insecure is set."
  type = object({
    certificate = string
    key         = string
    tokens      = string
  })
  default = null

  validation {
    condition     = alltrue([for arn in try(values(var.access), []) : can(regex("^arn:[^:]+:(ssm|secretsmanager):", arn))])
    error_message = "access: expected ARNs of parameters of SSM or secrets of Secrets Manager."
  }
}

variable "insecure" {
  description = "Serve without TLS and tokens: then the security group alone says who may call."
  type        = bool
  default     = false

  validation {
    condition     = var.insecure != (var.access != null)
    error_message = "insecure: name the secrets of certificate, key and tokens in access, or set insecure to true; one of the two."
  }
}

variable "kms_key_arns" {
  description = "Keys that those secrets are encrypted with, where they are the customer's own."
  type        = list(string)
  default     = []
}

variable "client_security_group_ids" {
  description = "Security groups that may call the server, by a name of your choice."
  type        = map(string)
}

variable "instance_types" {
  description = "Instances with one NVIDIA GPU, the preferred first; all of them with at least 4 cores and 16 GiB."
  type        = list(string)
  default     = ["g4dn.xlarge", "g5.xlarge", "g6.xlarge"]

  validation {
    condition     = length(var.instance_types) > 0
    error_message = "instance_types: expected at least one type with an NVIDIA GPU, such as [\"g5.xlarge\"]."
  }
}

variable "on_demand_base" {
  description = "Instances that are never Spot's."
  type        = number
  default     = 0
}

variable "spot_percent" {
  description = "Percent of the other instances that are Spot's."
  type        = number
  default     = 100

  validation {
    condition     = var.spot_percent >= 0 && var.spot_percent <= 100
    error_message = "spot_percent: expected 0 to 100."
  }
}

variable "disk_gib" {
  description = "Disk of an instance: image, engines, staged slides."
  type        = number
  default     = 100
}

variable "ami_parameter" {
  description = "The parameter of SSM that names the instances' image."
  type        = string
  default     = "/aws/service/ecs/optimized-ami/amazon-linux-2023/gpu/recommended/image_id"
}

variable "cpu" {
  description = "Processor units of the server; 1024 are one core."
  type        = number
  default     = 3072
}

variable "memory" {
  description = "MiB of the server."
  type        = number
  default     = 13312
}

variable "min_capacity" {
  description = "Fewest servers; 0 lets the GPUs go while nothing waits."
  type        = number
  default     = 0
}

variable "max_capacity" {
  description = "Most servers, and instances."
  type        = number
  default     = 4
}

variable "target_backlog" {
  description = "Messages that may wait for each server; more of them add servers."
  type        = number
  default     = 4
}

variable "hold_while_working" {
  description = "Take no server away while any job runs, so that scale-in ends none. With false one that goes drains for 100 s, and longer slides go on elsewhere from their checkpoint: cheaper where some job always runs."
  type        = bool
  default     = true
}

variable "scale_out_cooldown" {
  description = "Seconds between two steps up: longer than a GPU takes to come, or more are asked for than are needed."
  type        = number
  default     = 300
}

variable "concurrency" {
  description = "Jobs that one server works on at once."
  type        = number
  default     = 4
}

variable "waiting" {
  description = "Metrics whose sum is what waits for the servers."
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

variable "idle_ratio" {
  description = "A GPU that computes less than this share of the time is idle."
  type        = number
  default     = 0.05

  validation {
    condition     = var.idle_ratio > 0 && var.idle_ratio < 1
    error_message = "idle_ratio: expected a share between 0 and 1, such as 0.05."
  }
}

variable "most_exits" {
  description = "Servers that may end by themselves within 10 minutes."
  type        = number
  default     = 3
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
