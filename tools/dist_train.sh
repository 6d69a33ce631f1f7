#!/usr/bin/env bash
# Train with torchrun on the GPUs (or CPU processes) of one or several hosts.
#   tools/dist_train.sh CONFIG NUM_PROCESSES [options of tools/train.py]
# Several hosts: set NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT on each of them.
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
config=$1 processes=$2
shift 2

exec torchrun \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --nproc_per_node="$processes" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${MASTER_PORT:-29500}" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
