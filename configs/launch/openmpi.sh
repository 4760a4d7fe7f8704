#!/usr/bin/env bash
# Open MPI: one process for each slot of HOSTS. JAX detects the others from the variables of mpirun (Open MPI 5 needs
# mpi4py).
# https://docs.open-mpi.org, https://docs.jax.dev/en/latest/multi_process.html
#
#   bash configs/launch/openmpi.sh elpv_five_steps --workdir SHARED_FOLDER/runs/first
set -uo pipefail
for attempt in $(seq 10); do
  # When one process dies, mpirun ends the others.
  mpirun --hostfile HOSTS --map-by ppr:1:node transfer-jax train "$@"
  code=$?
  [[ $code -eq 0 || $code -eq 2 || $code -eq 130 ]] && exit "$code"
  echo "attempt $attempt ended with $code; resuming from the last checkpoint" >&2
  sleep $((attempt * 5))
done
exit "$code"
