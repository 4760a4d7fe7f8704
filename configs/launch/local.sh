#!/usr/bin/env bash
# One machine with several processes, which are started, watched, and restarted when one dies.
#
#   bash configs/launch/local.sh 2 elpv_five_steps --workdir runs/two
#
# On GPUs each process uses those in JAX_LOCAL_DEVICE_IDS; one process for all of them is simpler and as fast.
# On a CPU this simulates a cluster: `--devices 4` gives each process four devices.
set -euo pipefail
count=$1
shift
exec transfer-jax launch --processes "$count" --restarts 10 -- train "$@"
