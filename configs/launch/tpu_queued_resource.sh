#!/usr/bin/env bash
# Cloud TPU VMs with queued resources: requests a slice, and runs the same command on all of its hosts until it ends.
# https://cloud.google.com/tpu/docs/queued-resources
#
#   bash configs/launch/tpu_queued_resource.sh elpv_five_steps --batch-size 8192 --precision bfloat16
#
# Before that: transfer-jax plan elpv_five_steps --topology v5e:16x16 --images-per-chip 32
set -uo pipefail
project=PROJECT zone=ZONE name=transfer-jax type=v5litepod-256 runtime=v2-alpha-tpuv5-lite
workdir=gs://BUCKET/runs/first

ask() {
  gcloud compute tpus queued-resources create "$name" --project="$project" --zone="$zone" \
    --node-id="$name" --accelerator-type="$type" --runtime-version="$runtime" --spot
}
forget() {
  gcloud compute tpus queued-resources delete "$name" --project="$project" --zone="$zone" --force --quiet
}
state() {
  gcloud compute tpus queued-resources describe "$name" --project="$project" --zone="$zone" \
    --format='value(state.state)' 2>/dev/null
}
everywhere() {
  gcloud compute tpus tpu-vm ssh "$name" --project="$project" --zone="$zone" --worker=all --command="$1"
}

for attempt in $(seq 20); do
  [[ $(state) == ACTIVE ]] || { forget; ask; }
  until [[ $(state) == ACTIVE ]]; do sleep 30; done
  everywhere "pip install --quiet 'transfer_jax[remote]' 'jax[tpu]'" || continue
  # The hosts find each other through the metadata of Cloud TPU.
  everywhere "transfer-jax train $* --workdir $workdir"
  code=$?
  # Success, or a user error. Any other code, such as that of a preempted slice, resumes from the checkpoint.
  [[ $code -eq 0 || $code -eq 2 ]] && break
  echo "attempt $attempt ended with $code; resuming" >&2
done
forget
exit "$code"
