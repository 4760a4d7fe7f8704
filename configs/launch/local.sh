#!/usr/bin/env bash
# One machine, several processes: they are started, watched, and started again when one dies.
#
#   bash configs/launch/local.sh 2 elpv_five_steps --workdir runs/two
#
# On GPUs each process takes those that JAX_LOCAL_DEVICE_IDS leaves it; one process for all of them is simpler
# and as fast. On a CPU it is a rehearsal of a cluster: `--devices 4` gives each process four devices.
set -euo pipefail
count=$1
shift
exec transfer-jax launch --processes "$count" --restarts 10 -- train "$@"
