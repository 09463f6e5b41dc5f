locals {
  secured = var.access != null
  files = local.secured ? {
    "tls.crt" = var.access.certificate
    "tls.key" = var.access.key
    "tokens"  = var.access.tokens
  } : {}
  files_folder = "/run/lamina"

  environment = merge(
    {
      AWS_REGION              = local.region
      INFERENCE_LISTEN        = "0.0.0.0:8001"
      INFERENCE_HTTP          = "127.0.0.1:8002"
      INFERENCE_DEVICE        = "cuda:0"
      INFERENCE_GRACE_SECONDS = "12"
      INFERENCE_DRAIN_SECONDS = "100"
      # Answers of the CPU in a GPU's place say so, and an alarm tells when they are many.
      INFERENCE_FALLBACK = "cpu"
      # On the instance's disk: /tmp is memory, and slides are large.
      INFERENCE_STAGING = "/var/lib/lamina/engines/staging"
    },
    local.secured ? {
      INFERENCE_TLS_CERTIFICATE = "${local.files_folder}/tls.crt"
      INFERENCE_TLS_KEY         = "${local.files_folder}/tls.key"
      INFERENCE_TOKENS_FILE     = "${local.files_folder}/tokens"
      } : {
      INFERENCE_INSECURE = "true"
    },
    var.environment,
  )

  log = {
    for name in ["inference", "collector", "files"] : name => {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.inference.name
        awslogs-region        = local.region
        awslogs-stream-prefix = name
      }
    }
  }

  server = {
    name                   = "inference"
    image                  = var.image
    essential              = true
    user                   = "10001"
    readonlyRootFilesystem = true
    cpu                    = var.cpu
    memory                 = var.memory
    # The grace in which the name is forgotten, and the time to drain in.
    stopTimeout          = 120
    resourceRequirements = [{ type = "GPU", value = "1" }]
    linuxParameters = {
      initProcessEnabled = true
      sharedMemorySize   = 1024
      tmpfs              = [{ containerPath = "/tmp", size = 1024, mountOptions = ["mode=1777"] }]
    }
    environment  = [for name in sort(keys(local.environment)) : { name = name, value = local.environment[name] }]
    portMappings = [{ containerPort = 8001, hostPort = 8001, protocol = "tcp" }]
    mountPoints = concat(
      [{ sourceVolume = "engines", containerPath = "/var/lib/lamina/engines", readOnly = false }],
      local.secured ? [{ sourceVolume = "files", containerPath = local.files_folder, readOnly = true }] : [],
    )
    dependsOn = local.secured ? [{ containerName = "files", condition = "SUCCESS" }] : []
    healthCheck = {
      command     = ["CMD", "python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8002/readyz', timeout=4)"]
      interval    = 10
      timeout     = 5
      retries     = 6
      startPeriod = 300
    }
    logConfiguration = local.log["inference"]
  }

  collector = {
    name                   = "collector"
    image                  = var.collector_image
    essential              = false
    readonlyRootFilesystem = true
    cpu                    = 64
    memory                 = 128
    environment            = [{ name = "AOT_CONFIG_CONTENT", value = module.collector.configuration }]
    logConfiguration       = local.log["collector"]
  }

  # Whether a file is written hangs on nothing that is known only later, so that plans are whole.
  writer = [for name in local.secured ? ["files"] : [] : {
    name                   = name
    image                  = var.shell_image
    essential              = false
    readonlyRootFilesystem = true
    cpu                    = 64
    memory                 = 32
    command = ["sh", "-c", join(" && ", concat(
      ["umask 077"],
      [for index, file in sort(keys(local.files)) : "printf '%s\\n' \"$FILE_${index}\" > ${local.files_folder}/${file}"],
      ["chown -R 10001 ${local.files_folder}"],
    ))]
    secrets          = [for index, file in sort(keys(local.files)) : { name = "FILE_${index}", valueFrom = local.files[file] }]
    mountPoints      = [{ sourceVolume = "files", containerPath = local.files_folder, readOnly = false }]
    logConfiguration = local.log["files"]
  }]
}

module "collector" {
  source = "../collector"

  region         = local.region
  cluster_name   = aws_ecs_cluster.inference.name
  service_name   = local.tasks
  log_group_name = aws_cloudwatch_log_group.inference.name
  targets        = ["127.0.0.1:8002"]
}

resource "aws_ecs_task_definition" "inference" {
  family                   = local.tasks
  requires_compatibilities = ["EC2"]
  network_mode             = "awsvpc"
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  container_definitions    = jsonencode(concat(local.writer, [local.server], [local.collector]))

  # On the instance's disk, so that a new server of the same image finds built engines there.
  volume {
    name      = "engines"
    host_path = "/var/lib/lamina/engines"
  }

  dynamic "volume" {
    for_each = local.secured ? ["files"] : []
    content {
      name = volume.value
    }
  }
}
