variable "cluster_name" {
  description = "The EKS cluster."
  type        = string
}

variable "name" {
  description = "The node group."
  type        = string
  default     = "lamina-gpu"
}

variable "subnet_ids" {
  description = "The nodes' subnets."
  type        = list(string)
}

variable "instance_types" {
  description = "Instances with one NVIDIA GPU."
  type        = list(string)
  default     = ["g4dn.xlarge", "g5.xlarge", "g6.xlarge"]
}

variable "capacity_type" {
  description = "SPOT or ON_DEMAND."
  type        = string
  default     = "SPOT"

  validation {
    condition     = contains(["SPOT", "ON_DEMAND"], var.capacity_type)
    error_message = "capacity_type: expected SPOT or ON_DEMAND."
  }
}

variable "min_size" {
  description = "Fewest nodes; 0 lets the cluster autoscaler take the last one."
  type        = number
  default     = 0
}

variable "max_size" {
  description = "Most nodes."
  type        = number
  default     = 4

  validation {
    condition     = var.max_size >= 1 && var.max_size >= var.min_size
    error_message = "max_size: expected at least 1, and at least min_size (${var.min_size})."
  }
}

variable "disk_gib" {
  description = "Disk of a node, in GiB: image, engines, staged slides."
  type        = number
  default     = 100

  validation {
    condition     = var.disk_gib >= 40
    error_message = "disk_gib: expected at least 40; the server's image alone takes half of that."
  }
}

variable "kubernetes_version" {
  description = "The nodes' version; null for the cluster's."
  type        = string
  default     = null
}
