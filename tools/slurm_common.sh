# Sourced by slurm_train.sh and slurm_test.sh: reads GPUS, GPUS_PER_NODE, CPUS_PER_GPU, SRUN_ARGS.
# shellcheck shell=bash

gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
nodes=$(((gpus + gpus_per_node - 1) / gpus_per_node))
if [ $((nodes * gpus_per_node)) -ne "$gpus" ]; then
    echo "GPUS=$gpus is not a multiple of GPUS_PER_NODE=$gpus_per_node" >&2
    exit 2
fi

# on_every_node PARTITION JOB_NAME COMMAND...: run a dist_*.sh command once on each node.
on_every_node() {
    local partition=$1 job_name=$2
    shift 2
    # The rendezvous is on the first host of the allocation, which only the job itself knows.
    # shellcheck disable=SC2016,SC2086
    exec srun --partition="$partition" --job-name="$job_name" \
        --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 \
        --gres="gpu:$gpus_per_node" --cpus-per-task="$((gpus_per_node * ${CPUS_PER_GPU:-8}))" \
        --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
        bash -c '
            export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
            export NNODES=$SLURM_NNODES NODE_RANK=$SLURM_NODEID
            exec "$0" "$@"' "$@"
}
