#!/usr/bin/env bash
# Builds the images, pushes them to ECR, registers task definitions and updates services of ECS.
# Usage: deploy/deploy.sh build|push|register|update|deploy|rollback|all|help [--worker NAME] [--dry-run] …
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<'TEXT'
Usage: deploy/deploy.sh COMMAND [OPTION…]

Commands
  build      build the worker's images
  push       log in to ECR, make repositories that are missing, and push the images whose tag is not there yet
  register   register the worker's task definition from deploy/ecs
  update     let the service run the newest revision, and wait until it does
  deploy     register and update
  all        build, push, register and update
  rollback   let the service run the revision before its own, or --to REVISION
  help       show this

Options
  --worker NAME    ocr-gpu (the default), lab, wsi or inference; models, to build and push lamina-models alone
  --tag TAG        the images' tag, instead of IMAGE_TAG
  --models TAG     take the models of that tag, which are in the registry, instead of building them
  --to REVISION    the revision that rollback goes to
  --cluster NAME   the cluster, where it is called otherwise
  --service NAME   the service, where it is called otherwise
  --build-arg X=Y  given to docker build, such as BASE=…@sha256:…; more than once
  --no-wait        do not wait until the service is stable
  --dry-run        say what would be run, and run nothing that changes anything

Environment
  AWS_REGION       the region; needed
  AWS_ACCOUNT_ID   the account; asked of AWS when it is not set
  IMAGE_TAG        the images' tag; by default the commit that is checked out, without changes
  ENVIRONMENT      begins the lab worker's names; by default production
  Others are named by the task definition that wants them.
TEXT
}

fail() {
  echo "deploy.sh: $*" >&2
  exit 1
}

# Runs a command that changes something; in a dry run it is shown instead.
run() {
  if [ "$dry_run" = true ]; then
    printf 'would run:'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

needs() {
  local name
  for name in "$@"; do
    command -v "$name" >/dev/null || fail "$name is not installed, and $command needs it"
  done
}

# The Dockerfile that each image is built from.
dockerfile_of() {
  case $1 in
    lamina-bridge) echo Dockerfile.bridge ;;
    lamina-models) echo Dockerfile.models ;;
    lamina-inference-gpu) echo Dockerfile.gpu ;;
    lamina-inference-cpu) echo Dockerfile.cpu ;;
  esac
}

choose_worker() {
  ENVIRONMENT=${ENVIRONMENT:-production}
  case $worker in
    ocr-gpu)
      definition=ocr-gpu-worker.json family=filot-ocr-gpu-worker images=(lamina-bridge lamina-models lamina-inference-gpu)
      cluster=${cluster:-filot-ocr-gpu-cluster} service=${service:-filot-ocr-gpu-service}
      ;;
    lab)
      definition=lab-worker.json family=$ENVIRONMENT-ml-worker images=(lamina-bridge lamina-models lamina-inference-cpu)
      cluster=${cluster:-$ENVIRONMENT-ml-worker-cluster} service=${service:-$ENVIRONMENT-ml-worker}
      ;;
    wsi)
      definition=wsi-bridge.json family=wsi-worker images=(lamina-bridge)
      cluster=${cluster:-wsi-worker} service=${service:-wsi-worker}
      ;;
    inference)
      definition=inference-server.json family=lamina-inference images=(lamina-models lamina-inference-gpu)
      cluster=${cluster:-lamina-inference} service=${service:-lamina-inference}
      ;;
    models)
      case $command in build | push) ;; *) fail "--worker models: models are built and pushed, and run in no service; $command needs another worker" ;; esac
      [ -z "$models" ] || fail "--models names models that are there; give those that are built their tag by --tag"
      images=(lamina-models)
      ;;
    *) fail "--worker: '$worker' is none of ocr-gpu, lab, wsi, inference, models" ;;
  esac
  [ -z "$models" ] || leave_models
}

# Models that are in the registry are neither built nor pushed.
leave_models() {
  local image others=()
  for image in "${images[@]}"; do
    [ "$image" = lamina-models ] || others+=("$image")
  done
  images=("${others[@]}")
}

set_place() {
  [ -n "${AWS_REGION:-}" ] || fail "AWS_REGION is not set; set it to the region, such as ap-southeast-2"
  if [ -z "${AWS_ACCOUNT_ID:-}" ]; then
    needs aws
    AWS_ACCOUNT_ID=$(aws sts get-caller-identity --query Account --output text) || fail "AWS does not know us; sign in, or set AWS_ACCOUNT_ID"
  fi
  [[ $AWS_ACCOUNT_ID =~ ^[0-9]{12}$ ]] || fail "AWS_ACCOUNT_ID: '$AWS_ACCOUNT_ID' is no account; expected 12 digits"
  IMAGE_TAG=${tag:-${IMAGE_TAG:-}}
  if [ -z "$IMAGE_TAG" ]; then
    IMAGE_TAG=$(git -C "$root" rev-parse --short=12 HEAD 2>/dev/null || true)
    case $command in build | push | all) refuse_changes ;; esac
  fi
  [ -n "$IMAGE_TAG" ] || fail "IMAGE_TAG is not set, and this is no checkout to name images by; set it, or give --tag"
  registry=$AWS_ACCOUNT_ID.dkr.ecr.$AWS_REGION.amazonaws.com
}

# A commit's name must not stand for what is not in it.
refuse_changes() {
  [ -z "$(git -C "$root" status --porcelain 2>/dev/null | head -n 1)" ] ||
    fail "the checkout has changes that are in no commit, and images are named by the commit; commit them, or give --tag"
}

build() {
  needs docker
  local image file from
  if [ -n "$models" ] && [[ ${images[*]} == *lamina-inference* ]]; then
    needs aws
    log_in
  fi
  for image in "${images[@]}"; do
    file=$(dockerfile_of "$image")
    [ -f "$root/$file" ] || fail "$file is not there; $image is built from it"
    # An inference image takes its models from their own, whose layer stays the same while our code changes. What the caller gives comes last, and holds.
    from=()
    [[ $image != lamina-inference-* ]] || from=(--build-arg "MODELS=$registry/lamina-models:${models:-$IMAGE_TAG}")
    run docker build --platform linux/amd64 ${from[@]+"${from[@]}"} ${build_arguments[@]+"${build_arguments[@]}"} --file "$root/$file" --tag "$registry/$image:$IMAGE_TAG" "$root"
  done
}

log_in() {
  if [ "$dry_run" = true ]; then
    echo "would run: aws ecr get-login-password | docker login --username AWS --password-stdin $registry"
  else
    aws ecr get-login-password --region "$AWS_REGION" | docker login --username AWS --password-stdin "$registry"
  fi
}

push() {
  needs docker aws
  log_in
  local image
  for image in "${images[@]}"; do
    if ! aws ecr describe-repositories --region "$AWS_REGION" --repository-names "$image" >/dev/null 2>&1; then
      run aws ecr create-repository --region "$AWS_REGION" --repository-name "$image" \
        --image-tag-mutability IMMUTABLE --image-scanning-configuration scanOnPush=true
    fi
    # A tag is pushed once (IMMUTABLE): what failed later can be done again.
    if aws ecr describe-images --region "$AWS_REGION" --repository-name "$image" --image-ids "imageTag=$IMAGE_TAG" >/dev/null 2>&1; then
      echo "$image:$IMAGE_TAG is in the registry already and stays as it is"
    else
      run docker push "$registry/$image:$IMAGE_TAG"
    fi
  done
}

# The task definition with every ${NAME} put in; a name that is not set is told.
render() {
  local text name value missing=()
  text=$(<"$root/deploy/ecs/$definition")
  for name in $(grep -o '[$][{][A-Z_]*[}]' <<<"$text" | tr -cd 'A-Z_\n' | sort -u); do
    value=${!name:-}
    if [ -z "$value" ]; then
      missing+=("$name")
      continue
    fi
    value=${value//\\/\\\\}
    value=${value//\"/\\\"}
    text=${text//"\${$name}"/"$value"}
  done
  [ ${#missing[@]} -eq 0 ] || fail "deploy/ecs/$definition needs ${missing[*]}; set them in the environment"
  printf '%s\n' "$text"
}

register() {
  local text
  text=$(render)
  if [ "$dry_run" = true ]; then
    echo "would register $family:"
    printf '%s\n' "$text"
    return
  fi
  needs aws
  registered=$(aws ecs register-task-definition --region "$AWS_REGION" --cli-input-json "$text" \
    --query taskDefinition.taskDefinitionArn --output text)
  echo "$registered"
}

run_revision() {
  local update=(aws ecs update-service --region "$AWS_REGION" --cluster "$cluster" --service "$service" --task-definition "$1"
    --deployment-configuration 'deploymentCircuitBreaker={enable=true,rollback=true}' --query service.taskDefinition --output text)
  local wanted
  if [ "$dry_run" = true ]; then
    run "${update[@]}"
    [ "$wait" = false ] || run aws ecs wait services-stable --region "$AWS_REGION" --cluster "$cluster" --services "$service"
    return
  fi
  wanted=$("${update[@]}")
  [ "$wait" = false ] || wait_for "$wanted"
}

# Waits until the service runs a revision. A service that has gone back to its old one is stable too, so that what it runs is asked.
wait_for() {
  local wanted=$1 answer running state tries
  for ((tries = 0; tries < 20; tries++)); do
    aws ecs wait services-stable --region "$AWS_REGION" --cluster "$cluster" --services "$service"
    answer=$(aws ecs describe-services --query "services[0].deployments[?status=='PRIMARY'] | [0].[taskDefinition, rolloutState]" --output text \
      --region "$AWS_REGION" --cluster "$cluster" --services "$service")
    read -r running state <<<"$answer"
    [ "$running" = "$wanted" ] || fail "$service did not become healthy with ${wanted##*/} and has gone back to ${running##*/}; its events and logs tell why"
    case $state in
      COMPLETED)
        echo "$service runs ${wanted##*/}"
        return
        ;;
      FAILED) fail "$service did not become healthy with ${wanted##*/}, and has no revision to go back to; its events and logs tell why" ;;
    esac
    # Its tasks run, and are not yet called healthy.
    sleep 15
  done
  fail "$service has not become healthy with ${wanted##*/} in time; its rollout is $state"
}

# What the service runs now, as family:revision. Its absence is told with the way to make it.
running_revision() {
  local arn
  arn=$(aws ecs describe-services --region "$AWS_REGION" --cluster "$cluster" --services "$service" \
    --query "services[?status=='ACTIVE'].taskDefinition | [0]" --output text) || fail "the cluster $cluster cannot be asked; is there one?"
  [ "$arn" != None ] && [ -n "$arn" ] || fail "there is no service $service in $cluster; make it by deploy/terraform/examples"
  echo "${arn##*/}"
}

update() {
  needs aws
  running_revision >/dev/null
  run_revision "${registered:-$family}"
}

# The newest revision before the one that runs.
revision_before() {
  local running=$1 arn revision
  for arn in $(aws ecs list-task-definitions --region "$AWS_REGION" --family-prefix "${running%:*}" --status ACTIVE --sort DESC \
    --query taskDefinitionArns --output text); do
    revision=${arn##*:}
    if [ "${arn##*/}" = "${running%:*}:$revision" ] && [ "$revision" -lt "${running##*:}" ]; then
      echo "${running%:*}:$revision"
      return
    fi
  done
  fail "there is no revision before $running to go back to"
}

rollback() {
  needs aws
  local running wanted
  running=$(running_revision)
  if [ -n "$to" ]; then
    wanted=${running%:*}:$to
  else
    wanted=$(revision_before "$running")
  fi
  echo "$service goes back from $running to $wanted"
  run_revision "$wanted"
}

command=${1:-help}
[ $# -eq 0 ] || shift
worker=ocr-gpu dry_run=false wait=true tag='' models='' to='' cluster='' service='' registered='' build_arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry_run=true ;;
    --no-wait) wait=false ;;
    --build-arg)
      [ $# -ge 2 ] || fail "$1 needs a value"
      build_arguments+=(--build-arg "$2")
      shift
      ;;
    --worker | --tag | --models | --to | --cluster | --service)
      [ $# -ge 2 ] || fail "$1 needs a value"
      printf -v "${1#--}" '%s' "$2"
      shift
      ;;
    *) fail "unknown option '$1'; deploy/deploy.sh help lists them" ;;
  esac
  shift
done

case $command in
  help | --help | -h) usage && exit ;;
  build | push | register | update | deploy | rollback | all) ;;
  *) fail "unknown command '$command'; deploy/deploy.sh help lists them" ;;
esac
[[ -z $to || $to =~ ^[0-9]+$ ]] || fail "--to: '$to' is no revision; expected a number"
choose_worker
set_place
case $command in
  # Each by itself: in a list with && a step would go on after a failure within it.
  deploy)
    register
    update
    ;;
  all)
    # What is not set is told before anything is built.
    render >/dev/null
    build
    push
    register
    update
    ;;
  *) "$command" ;;
esac
