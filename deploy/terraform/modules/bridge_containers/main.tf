# The containers of a bridge's task on Fargate: the bridge, maybe an inference server beside it, and the collector of their metrics.
locals {
  state_folder = "/var/lib/lamina"
  files_folder = "/run/lamina"
  # What the bridge keeps of the time before SIGKILL for giving leases back.
  drain_seconds = var.stop_seconds - 20
  # What images, logs and built engines leave of the task's disk.
  staged_bytes = (var.disk_gib - 8) * 1024 * 1024 * 1024

  log = {
    for name in ["bridge", "inference", "collector", "files"] : name => {
      logDriver = "awslogs"
      options = {
        awslogs-group         = var.log_group_name
        awslogs-region        = var.region
        awslogs-stream-prefix = name
      }
    }
  }

  environment = merge(
    {
      AWS_REGION           = var.region
      BRIDGE_HTTP          = "0.0.0.0:8080"
      BRIDGE_DRAIN_SECONDS = tostring(local.drain_seconds)
      # The root of the file system is read-only.
      TMPDIR = local.state_folder
    },
    var.inference == null ? {} : {
      BRIDGE_INFERENCE      = "127.0.0.1:8001"
      BRIDGE_RESULTS_SHARED = "false"
    },
    var.environment,
  )

  bridge = {
    name                   = var.container_name
    image                  = var.image
    essential              = true
    user                   = "10001"
    readonlyRootFilesystem = true
    stopTimeout            = var.stop_seconds
    environment            = [for name in sort(keys(local.environment)) : { name = name, value = local.environment[name] }]
    secrets                = [for name in sort(keys(var.secrets)) : { name = name, valueFrom = var.secrets[name] }]
    portMappings           = [{ containerPort = 8080, hostPort = 8080, protocol = "tcp" }]
    mountPoints = concat(
      [{ sourceVolume = "state", containerPath = local.state_folder, readOnly = false }],
      length(var.files) == 0 ? [] : [{ sourceVolume = "files", containerPath = local.files_folder, readOnly = true }],
    )
    # What a container depends on is stopped after it: the server answers while the bridge drains.
    dependsOn = concat(
      var.inference == null ? [] : [{ containerName = "inference", condition = "HEALTHY" }],
      length(var.files) == 0 ? [] : [{ containerName = "files", condition = "SUCCESS" }],
    )
    healthCheck = {
      command     = ["CMD", "python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/livez', timeout=4)"]
      interval    = 30
      timeout     = 5
      retries     = 3
      startPeriod = 60
    }
    logConfiguration = local.log["bridge"]
  }

  server_environment = merge(
    {
      AWS_REGION             = var.region
      INFERENCE_LISTEN       = "127.0.0.1:8001"
      INFERENCE_HTTP         = "127.0.0.1:8002"
      INFERENCE_DEVICE       = "cpu"
      INFERENCE_ENGINE_CACHE = "${local.state_folder}/engines"
      # The image names /tmp, which cannot be written on Fargate.
      INFERENCE_STAGING          = "${local.state_folder}/engines/staging"
      INFERENCE_MAX_STAGED_BYTES = tostring(local.staged_bytes)
      TMPDIR                     = "${local.state_folder}/engines"
    },
    try(var.inference.environment, {}),
  )

  inference = var.inference == null ? [] : [{
    name                   = "inference"
    image                  = var.inference.image
    essential              = true
    user                   = "10001"
    readonlyRootFilesystem = true
    memory                 = var.inference.memory
    stopTimeout            = 30
    environment            = [for name in sort(keys(local.server_environment)) : { name = name, value = local.server_environment[name] }]
    mountPoints            = [{ sourceVolume = "engines", containerPath = "${local.state_folder}/engines", readOnly = false }]
    healthCheck = {
      command     = ["CMD", "python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8002/readyz', timeout=4)"]
      interval    = 10
      timeout     = 5
      retries     = 6
      startPeriod = 120
    }
    logConfiguration = local.log["inference"]
  }]

  collector = {
    name                   = "collector"
    image                  = var.collector_image
    essential              = false
    readonlyRootFilesystem = true
    memory                 = 128
    environment            = [{ name = "AOT_CONFIG_CONTENT", value = module.collector.configuration }]
    logConfiguration       = local.log["collector"]
  }

  files = length(var.files) == 0 ? [] : [{
    name                   = "files"
    image                  = var.shell_image
    essential              = false
    readonlyRootFilesystem = true
    memory                 = 32
    command = ["sh", "-c", join(" && ", concat(
      ["umask 077"],
      [for index, name in sort(keys(var.files)) : "printf '%s\\n' \"$FILE_${index}\" > ${local.files_folder}/${name}"],
      ["chown -R 10001 ${local.files_folder}"],
    ))]
    secrets          = [for index, name in sort(keys(var.files)) : { name = "FILE_${index}", valueFrom = var.files[name] }]
    mountPoints      = [{ sourceVolume = "files", containerPath = local.files_folder, readOnly = false }]
    logConfiguration = local.log["files"]
  }]
}

module "collector" {
  source = "../collector"

  region         = var.region
  cluster_name   = var.cluster_name
  service_name   = var.service_name
  log_group_name = var.log_group_name
  targets        = concat(["127.0.0.1:8080"], var.inference == null ? [] : ["127.0.0.1:8002"])
}
