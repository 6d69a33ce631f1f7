#!/usr/bin/env bash
# Train on a Slurm cluster: one torchrun on each node, one process on each GPU.
#   GPUS=16 GPUS_PER_NODE=8 tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
# Also read: CPUS_PER_GPU (default 8), SRUN_ARGS (more options of srun), MASTER_PORT.
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
partition=$1 job_name=$2 config=$3
shift 3

tools=$(dirname "$0")
source "$tools/slurm_common.sh"
on_every_node "$partition" "$job_name" "$tools/dist_train.sh" "$config" "$gpus_per_node" "$@"
