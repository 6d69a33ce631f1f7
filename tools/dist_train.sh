#!/usr/bin/env bash
# Train with torchrun on the GPUs (or CPU processes) of one or several hosts.
#   tools/dist_train.sh CONFIG NUM_PROCESSES [options of tools/train.py]
# Several hosts: set NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT on each of them.
# MAX_RESTARTS=3 starts all processes again, from the last checkpoint, when one of them fails; a
# host that has died comes back when this command is run on it again. LOCAL_ADDR is this host's
# address, where its name does not lead there.
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
config=$1 processes=$2
shift 2
address=${MASTER_ADDR:-127.0.0.1} port=${MASTER_PORT:-29500} rank=${NODE_RANK:-0}

if [ "${MAX_RESTARTS:-0}" -gt 0 ]; then
    # Hosts meet again and again at the first one, and are numbered anew each time. Processes get a
    # new store each time: one that torchrun keeps is not announced to hosts that come back
    # (PyTorch issue 135712).
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    meeting=(
        --max_restarts="$MAX_RESTARTS" --rdzv_backend=c10d --rdzv_endpoint="$address:$port"
        --rdzv_conf="is_host=$([ "$rank" -eq 0 ] && echo 1 || echo 0)"
    )
    set -- --resume "$@"
else
    meeting=(--node_rank="$rank" --master_addr="$address" --master_port="$port")
fi
[ -z "${LOCAL_ADDR:-}" ] || meeting+=(--local_addr="$LOCAL_ADDR")

# Sent to the whole job, USR1 has the workers save and leave (PreemptionHook); it must not end
# torchrun before.
trap '' USR1
exec torchrun \
    --nnodes="${NNODES:-1}" \
    --nproc_per_node="$processes" \
    "${meeting[@]}" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
