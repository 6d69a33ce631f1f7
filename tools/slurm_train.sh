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

gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
nodes=$(((gpus + gpus_per_node - 1) / gpus_per_node))
if [ $((nodes * gpus_per_node)) -ne "$gpus" ]; then
    echo "GPUS=$gpus is not a multiple of GPUS_PER_NODE=$gpus_per_node" >&2
    exit 2
fi

# Rank 0 of the rendezvous is the first host of the allocation, which only the job itself knows.
# shellcheck disable=SC2086
exec srun --partition="$partition" --job-name="$job_name" \
    --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 \
    --gres="gpu:$gpus_per_node" --cpus-per-task="$((gpus_per_node * ${CPUS_PER_GPU:-8}))" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    bash -c '
        MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1) \
        NNODES=$SLURM_NNODES NODE_RANK=$SLURM_NODEID \
        exec "$0" "$@"' \
    "$(dirname "$0")/dist_train.sh" "$config" "$gpus_per_node" "$@"
