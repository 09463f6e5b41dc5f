# Nodes with GPUs for the overlay deploy/kubernetes/overlays/eks-gpu: labelled and tainted so that only inference servers go there.
data "aws_partition" "current" {}

locals {
  labels = { "lamina.dev/gpu" = "true", "nvidia.com/gpu.present" = "true" }
  taint  = { key = "nvidia.com/gpu", value = "true" }
  # What a node will be like: the cluster autoscaler reads it off the autoscaling group while there is no node to look at. Of disk too,
  # which servers ask for: without it no node would be thought large enough.
  template = merge(
    { for label, value in local.labels : "label/${label}" => value },
    {
      "taint/${local.taint.key}"    = "${local.taint.value}:NoSchedule"
      "resources/nvidia.com/gpu"    = "1"
      "resources/ephemeral-storage" = "${var.disk_gib}Gi"
    },
  )
  policies = [
    "AmazonEKSWorkerNodePolicy",
    "AmazonEKS_CNI_Policy",
    "AmazonEC2ContainerRegistryPullOnly",
  ]
}

resource "aws_iam_role" "node" {
  name_prefix = "${substr(var.name, 0, 24)}-node-"
  description = "GPU nodes of ${var.cluster_name}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(local.policies)

  role       = aws_iam_role.node.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/${each.value}"
}

resource "aws_launch_template" "node" {
  name_prefix            = "${var.name}-"
  update_default_version = true

  # Pods have service accounts; the node's own credentials are none of theirs.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  monitoring {
    enabled = true
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size           = var.disk_gib
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }
}

resource "aws_eks_node_group" "gpu" {
  cluster_name    = var.cluster_name
  node_group_name = var.name
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = var.subnet_ids
  ami_type        = "AL2023_x86_64_NVIDIA"
  capacity_type   = var.capacity_type
  instance_types  = var.instance_types
  version         = var.kubernetes_version
  labels          = local.labels

  launch_template {
    id      = aws_launch_template.node.id
    version = aws_launch_template.node.latest_version
  }

  scaling_config {
    min_size     = var.min_size
    max_size     = var.max_size
    desired_size = var.min_size
  }

  taint {
    key    = local.taint.key
    value  = local.taint.value
    effect = "NO_SCHEDULE"
  }

  update_config {
    max_unavailable = 1
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }

  depends_on = [aws_iam_role_policy_attachment.node]
}

# A node group's own tags do not reach the group of autoscaling that EKS makes for it.
resource "aws_autoscaling_group_tag" "template" {
  for_each = local.template

  autoscaling_group_name = aws_eks_node_group.gpu.resources[0].autoscaling_groups[0].name

  tag {
    key                 = "k8s.io/cluster-autoscaler/node-template/${each.key}"
    value               = each.value
    propagate_at_launch = false
  }
}
