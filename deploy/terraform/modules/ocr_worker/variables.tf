variable "name" {
  description = "The cluster of the GPUs and, with -bridge and -inference, the services."
  type        = string
  default     = "filot-ocr-gpu"
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "subnet_ids" {
  description = "The subnets of tasks and instances, with NAT or VPC endpoints: R2 lies outside."
  type        = list(string)
}

variable "image" {
  description = "The bridge's image, from Dockerfile.bridge. Pin it by digest."
  type        = string
}

variable "inference_image" {
  description = "The inference server's image, from Dockerfile.gpu. Pin it by digest."
  type        = string
}

variable "secret_prefix" {
  description = "Begins the names of the platform's secrets in Secrets Manager."
  type        = string
  default     = "filot/"
}

variable "optional_secrets" {
  description = "Secrets that not every platform has, by the variable that they set, such as { BULI2_API_KEY = \"buli2-api-key\" }; names follow secret_prefix."
  type        = map(string)
  default     = {}
}

variable "queue_key" {
  description = "The GPU's list: OCR_GPU_QUEUE_KEY."
  type        = string
  default     = "filot:ocr:gpu:queue"
}

variable "cpu_queue_key" {
  description = "The CPU's list, which is served after the GPU's."
  type        = string
  default     = "filot:ocr:queue"
}

variable "settings" {
  description = "More settings of the worker: OCR_GPU_… and BRIDGE_…"
  type        = map(string)
  default     = {}
}

variable "bridges" {
  description = "Bridges that always run; one tells what waits while no GPU does, two outlive each other."
  type        = number
  default     = 1

  validation {
    condition     = var.bridges >= 1
    error_message = "bridges: expected at least 1; without one nobody tells what waits in Redis."
  }
}

variable "concurrency" {
  description = "Documents at once of one bridge: OCR_GPU_CONCURRENCY."
  type        = number
  default     = 8
}

variable "instance_types" {
  description = "Instances with one NVIDIA GPU, the preferred first."
  type        = list(string)
  default     = ["g4dn.xlarge", "g5.xlarge", "g6.xlarge"]
}

variable "spot_percent" {
  description = "Percent of the instances that are Spot's."
  type        = number
  default     = 100

  validation {
    condition     = var.spot_percent >= 0 && var.spot_percent <= 100
    error_message = "spot_percent: expected 0 to 100."
  }
}

variable "min_capacity" {
  description = "Fewest GPUs."
  type        = number
  default     = 0
}

variable "max_capacity" {
  description = "Most GPUs."
  type        = number
  default     = 4
}

variable "target_backlog" {
  description = "Documents that may wait for each GPU."
  type        = number
  default     = 20
}

variable "hold_while_working" {
  description = "Take no GPU away while any document is read. With false one that goes drains for 100 s, far longer than a card takes: cheaper where some document always is."
  type        = bool
  default     = true
}

variable "access" {
  description = "Secrets of the inference server, see gpu_inference, with ca and token for the bridge; null where insecure is set."
  type = object({
    certificate = string
    key         = string
    tokens      = string
    ca          = string
    token       = string
  })
  default = null
}

variable "insecure" {
  description = "Speak without TLS and tokens between bridge and server: then the security groups alone say who may call."
  type        = bool
  default     = false
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
  description = "More settings of the inference servers: INFERENCE_…"
  type        = map(string)
  default     = {}
}
