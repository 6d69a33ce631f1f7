#!/usr/bin/env bash
# Evaluate on a Slurm cluster: one torchrun on each node, one process on each GPU.
#   GPUS=8 tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]
# Also read: GPUS_PER_NODE, CPUS_PER_GPU (default 8), SRUN_ARGS (more options of srun), MASTER_PORT.
set -euo pipefail

if [ $# -lt 4 ]; then
    sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
partition=$1 job_name=$2 config=$3 checkpoint=$4
shift 4

tools=$(dirname "$0")
source "$tools/slurm_common.sh"
on_every_node "$partition" "$job_name" \
    "$tools/dist_test.sh" "$config" "$checkpoint" "$gpus_per_node" "$@"
