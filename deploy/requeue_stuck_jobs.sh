#!/usr/bin/env bash
# Puts jobs back that are stuck: documents of the card platform that a dead worker left in Redis, or dead messages of a queue of SQS.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: deploy/requeue_stuck_jobs.sh [--dry-run] [--redis-url URL] [--queue-key KEY] [--processing-key KEY] [--older-than SECONDS]
       deploy/requeue_stuck_jobs.sh [--dry-run] --sqs-queue NAME [--reason TEXT]

  --dry-run             only say what is stuck
  --redis-url URL       the platform's Redis; by default REDIS_URL
  --queue-key KEY       the list that documents wait in; by default filot:ocr:gpu:queue
  --processing-key KEY  the set of those in progress; by default filot:ocr:gpu:processing
  --older-than SECONDS  stuck after so long; by default OCR_GPU_STUCK_TIMEOUT, 300 s
  --sqs-queue NAME      a queue of dead messages, such as production-ml-worker-dlq: they are sent to where they came from
  --reason TEXT         only those whose reason holds this

Documents that a bridge holds are never touched. Of the CPU's list, whose old worker notes no times, all others are stuck: stop that worker first. It needs `bridge` on the path: in a container of the bridge, or by make setup.
TEXT
}

fail() {
  echo "requeue_stuck_jobs.sh: $*" >&2
  exit 1
}

sqs_queue='' reason='' dry_run=()
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage && exit ;;
    --dry-run) dry_run=(--dry-run) ;;
    --redis-url | --queue-key | --processing-key | --older-than | --sqs-queue | --reason)
      [ $# -ge 2 ] || fail "$1 needs a value"
      case $1 in
        --redis-url) export REDIS_URL=$2 ;;
        --queue-key) export OCR_GPU_QUEUE_KEY=$2 ;;
        --processing-key) export OCR_GPU_PROCESSING_KEY=$2 ;;
        --older-than)
          [[ $2 =~ ^[0-9]+$ ]] || fail "--older-than: '$2' is no number of seconds"
          export OCR_GPU_STUCK_TIMEOUT=$(($2 * 1000))
          ;;
        --sqs-queue) sqs_queue=$2 ;;
        --reason) reason=$2 ;;
      esac
      shift
      ;;
    *) fail "unknown option '$1'; --help lists them" ;;
  esac
  shift
done
command -v bridge >/dev/null || fail "bridge is not on the path; run this in a container of the bridge, or after make setup with .venv/bin on the path"

if [ -n "$sqs_queue" ]; then
  chosen=(--all)
  [ -z "$reason" ] || chosen=(--reason "$reason")
  exec bridge dead replay --queue "$sqs_queue" "${chosen[@]}" ${dry_run[@]+"${dry_run[@]}"}
fi
[ -z "$reason" ] || fail "--reason goes with --sqs-queue"
# The worker's variables are read as it reads them; where its objects lie is asked for, and no object is touched.
export OCR_GPU_AUTOFALLBACK=${OCR_GPU_AUTOFALLBACK:-true}
export CF_R2_BUCKET_NAME=${CF_R2_BUCKET_NAME:-unused} CF_R2_ENDPOINT=${CF_R2_ENDPOINT:-https://unused.invalid}
exec bridge documents reap ${dry_run[@]+"${dry_run[@]}"}
