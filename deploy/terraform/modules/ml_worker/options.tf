# Beyond the stack that this module replaces. Each has a default.

variable "bridge_image" {
  description = "The bridge's image; null for {ecr_repository_url}/lamina-bridge:{image_tag}."
  type        = string
  default     = null
}

variable "inference_image" {
  description = "The inference server's image for processors; null for {ecr_repository_url}/lamina-inference-cpu:{image_tag}."
  type        = string
  default     = null
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

variable "inference_address" {
  description = "host:port of an inference server elsewhere; empty for one in each task."
  type        = string
  default     = ""
}

variable "settings" {
  description = "More settings of the bridge, such as AGGREGATION_INTERVAL or DEFAULT_TIMEZONE."
  type        = map(string)
  default     = {}
}

variable "inference_environment" {
  description = "More settings of the inference server in each task: INFERENCE_…"
  type        = map(string)
  default     = {}
}

variable "max_receive_count" {
  description = "After so many receipts SQS itself moves a job to the dead letters. The replaced worker's 3 counted its failures; of the bridge, receipts are waits and interruptions, and failures (3) are counted in its ledger. With 3, a quarter of an hour without a server or three Spot notices would put aside jobs that never failed."
  type        = number
  default     = 1000

  validation {
    condition     = var.max_receive_count >= 1 && var.max_receive_count <= 1000
    error_message = "max_receive_count: expected 1 to 1000, as SQS takes."
  }
}

variable "assign_public_ip" {
  description = "Whether tasks get public addresses, which they need in subnets with neither NAT nor VPC endpoints."
  type        = bool
  default     = false
}

variable "manage_role_policies" {
  description = "Whether the module writes the rights into the two roles; false where another team does, from the outputs worker_policy and execution_policy."
  type        = bool
  default     = true
}

variable "kms_key_arns" {
  description = "Keys that the parameters of the database's account are encrypted with, where they are the customer's own."
  type        = list(string)
  default     = []
}

variable "stop_seconds" {
  description = "Seconds between SIGTERM and SIGKILL, at most 120."
  type        = number
  default     = 120
}

variable "alarm_actions" {
  description = "ARNs that are told when an alarm rises or falls, such as a topic of SNS."
  type        = list(string)
  default     = []
}

variable "thresholds" {
  description = "When the alarms rise; see the module worker_alarms."
  type        = map(number)
  default     = {}
}
