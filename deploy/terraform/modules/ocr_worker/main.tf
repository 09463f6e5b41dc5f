# The card platform's OCR worker: thin bridges that always run and read Redis, and GPUs that come and go with what waits there.
# A list of Redis tells CloudWatch nothing, so that somebody has to while no GPU runs; that is the bridge, at a quarter of a core.
locals {
  bridge = "${var.name}-bridge"

  platform_secrets = merge(
    {
      DATABASE_URL            = "database-url"
      REDIS_URL               = "redis-url"
      REDIS_PASSWORD          = "redis-password"
      CF_R2_ENDPOINT          = "cf-r2-endpoint"
      CF_R2_ACCESS_KEY_ID     = "cf-r2-access-key"
      CF_R2_SECRET_ACCESS_KEY = "cf-r2-secret-key"
      CF_R2_BUCKET_NAME       = "cf-r2-bucket"
      BULI2_API_URL           = "buli2-api-url"
      BULI2_CALLBACK_URL      = "buli2-callback-url"
    },
    var.optional_secrets,
  )

  # What waits for another try, such as for a server, waits as well. Each bridge tells of the whole list, so that the largest figure is
  # the list's, and figures of different lists add up.
  queues = [var.queue_key, var.cpu_queue_key]
  levels = {
    for kind, states in { waiting = ["waiting", "delayed"], leased = ["leased"] } : kind => [
      for pair in setproduct(local.queues, states) : {
        namespace  = "Lamina"
        name       = "bridge_queue_messages"
        dimensions = { ClusterName = var.name, ServiceName = local.bridge, queue = pair[0], state = pair[1] }
        statistic  = "Maximum"
      }
    ]
  }
}

data "aws_secretsmanager_secret" "platform" {
  for_each = local.platform_secrets

  name = "${var.secret_prefix}${each.value}"
}

module "servers" {
  source = "../gpu_inference"

  name           = var.name
  vpc_id         = var.vpc_id
  subnet_ids     = var.subnet_ids
  image          = var.inference_image
  environment    = merge({ INFERENCE_SERVICES = "documents" }, var.inference_environment)
  instance_types = var.instance_types
  spot_percent   = var.spot_percent
  min_capacity   = var.min_capacity
  max_capacity   = var.max_capacity
  target_backlog = var.target_backlog
  concurrency    = var.concurrency
  waiting        = local.levels.waiting
  working        = local.levels.leased
  insecure       = var.insecure
  alarm_actions  = var.alarm_actions

  hold_while_working = var.hold_while_working
  access = var.access == null ? null : {
    certificate = var.access.certificate
    key         = var.access.key
    tokens      = var.access.tokens
  }
  client_security_group_ids = { bridge = module.bridge.security_group_id }
}

module "bridge" {
  source = "../bridge_service"

  name              = local.bridge
  vpc_id            = var.vpc_id
  subnet_ids        = var.subnet_ids
  cluster           = module.servers.cluster
  capacity_provider = "FARGATE"
  image             = var.image
  scale             = false
  min_capacity      = var.bridges
  concurrency       = var.concurrency
  waiting           = local.levels.waiting
  working           = local.levels.leased
  inference_service = module.servers.service_name
  alarm_actions     = var.alarm_actions
  thresholds        = var.thresholds
  files             = var.access == null ? {} : { "ca.crt" = var.access.ca }

  secrets = merge(
    { for name, secret in data.aws_secretsmanager_secret.platform : name => secret.arn },
    var.access == null ? {} : { BRIDGE_INFERENCE_TOKEN = var.access.token },
  )

  environment = merge(
    {
      OCR_GPU_ENABLED     = "true"
      OCR_GPU_CONCURRENCY = tostring(var.concurrency)
      OCR_GPU_QUEUE_KEY   = var.queue_key
      BRIDGE_INFERENCE    = module.servers.address
    },
    var.access == null ? {} : { BRIDGE_INFERENCE_TLS = "true", BRIDGE_INFERENCE_TLS_CA = "/run/lamina/ca.crt" },
    var.settings,
  )
}
