# The whole-slide platform's worker: MassTransit's topics and queues with the names that it gives them, and a bridge that serves them.
data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  region  = data.aws_region.current.region
  part    = data.aws_partition.current.partition
  account = data.aws_caller_identity.current.account_id

  topics = {
    requested = "HiveOrders_Api_Shared_Events-WsiAnalysisRequestedEvent"
    completed = "HiveOrders_Api_Shared_Events-WsiAnalysisCompletedEvent"
    failed    = "HiveOrders_Api_Shared_Events-WsiAnalysisFailedEvent"
  }
  topic_arns = {
    for key, name in local.topics :
    key => var.create_topics ? aws_sns_topic.events[key].arn : "arn:${local.part}:sns:${local.region}:${local.account}:${name}"
  }
  queues  = concat([module.requests], module.plain_requests)
  slides  = "arn:${local.part}:s3:::${var.bucket}"
  results = "s3://${var.bucket}/results/"
}

resource "aws_sns_topic" "events" {
  for_each = var.create_topics ? local.topics : {}

  name              = each.value
  kms_master_key_id = var.topic_kms_key
}

module "requests" {
  source = "../sqs_queue"

  name       = var.queue_name
  topic_arns = [local.topic_arns.requested]
}

module "plain_requests" {
  source = "../sqs_queue"
  count  = var.plain_queue ? 1 : 0

  name = "wsi-jobs-in"
}

resource "aws_sqs_queue" "answers" {
  for_each = toset(var.plain_queue ? ["wsi-jobs-out", "results"] : ["results"])

  name                      = each.value == "results" ? "${var.name}-results" : each.value
  message_retention_seconds = 14 * 24 * 3600
  sqs_managed_sse_enabled   = true
}

module "only_by_tls" {
  source = "../only_by_tls"

  queues = { for key, queue in aws_sqs_queue.answers : key => { url = queue.url, arn = queue.arn } }
}

module "bridge" {
  source = "../bridge_service"

  name              = var.name
  vpc_id            = var.vpc_id
  subnet_ids        = var.subnet_ids
  assign_public_ip  = var.assign_public_ip
  cluster           = var.cluster
  image             = var.image
  cpu               = var.cpu
  memory            = var.memory
  disk_gib          = var.disk_gib
  min_capacity      = var.min_capacity
  max_capacity      = var.max_capacity
  target_backlog    = var.target_backlog
  concurrency       = var.concurrency
  inference_service = var.inference_service
  alarm_actions     = var.alarm_actions
  thresholds        = var.thresholds
  files             = var.files
  secrets           = merge({ BRIDGE_DATABASE = var.database_secret }, var.secrets)
  task_policy       = jsonencode(local.bridge_policy)
  waiting           = [for queue in local.queues : queue.waiting]
  working           = [for queue in local.queues : queue.working]

  dead_letter_queues = flatten([for queue in local.queues : queue.neighbour_names])

  environment = merge(
    {
      AWS__Region           = local.region
      AWS__S3__BucketName   = var.bucket
      BRIDGE_SQS_QUEUES     = join(",", local.queue_names)
      BRIDGE_RESULTS_QUEUE  = aws_sqs_queue.answers["results"].name
      BRIDGE_RESULTS        = local.results
      BRIDGE_RESULTS_SHARED = "true"
    },
    var.inference_address == "" ? {} : { BRIDGE_INFERENCE = var.inference_address },
    var.settings,
  )

  inference = var.inference == null ? null : {
    image  = var.inference.image
    memory = var.inference.memory
    environment = merge(
      { INFERENCE_SERVICES = "slides", INFERENCE_READ_ROOTS = "s3://${var.bucket}/wsi/", INFERENCE_WRITE_ROOTS = local.results },
      var.inference.environment,
    )
  }
}
