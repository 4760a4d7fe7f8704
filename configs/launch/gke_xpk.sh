#!/usr/bin/env bash
# GKE with xpk, which creates the JobSet and the queue.
# https://github.com/AI-Hypercomputer/xpk
#
#   bash configs/launch/gke_xpk.sh first elpv_five_steps --batch-size 8192 --precision bfloat16
set -euo pipefail
name=$1
shift
# A preempted run saves and ends with exit code 75; xpk starts it again, and it resumes.
xpk workload create \
  --project=PROJECT --zone=ZONE --cluster=CLUSTER \
  --workload="$name" --tpu-type=v5litepod-256 --num-slices=1 \
  --docker-image=IMAGE \
  --max-restarts=20 --restart-on-user-code-failure --termination-grace-period-seconds=120 \
  --command="transfer-jax train $* --workdir gs://BUCKET/runs/$name"
