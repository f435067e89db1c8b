#!/usr/bin/env bash
# One training on several machines under Slurm; goes on by itself when its time is over.
#
#   sbatch --nodes 4 examples/cluster/slurm.sh text --out /shared/runs/text --batch_size 4096 --machine.strategy fsdp
#
# What follows the script is what `unmask train` takes; the output folder must be on a file system that all machines share.
# Three minutes before the end Slurm tells this script (USR1), which stops the training (TERM: the step is finished, a
# checkpoint saved) and queues the job again; the same command then goes on. A finished training ends at once.
#SBATCH --job-name=unmask
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
set -euo pipefail

again=
step=
# shellcheck disable=SC2317,SC2329 # the traps call it
stop() {
  if [[ -n $step ]]; then kill -TERM "$step" 2>/dev/null || true; fi
}
trap 'again=yes; stop' USR1
trap stop TERM # of a preemption, after which Slurm itself queues the job again

gpus=${SLURM_GPUS_ON_NODE:-8}
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${hosts%%$'\n'*} # not `| head`: a writer that it cuts off ends the script
export OMP_NUM_THREADS=$((${SLURM_CPUS_PER_TASK:-$gpus} / gpus))

srun --kill-on-bad-exit=1 torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$gpus" \
  --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:29500" \
  -m unmask train "$@" --device cuda --quiet &
step=$!

code=0
while kill -0 "$step" 2>/dev/null; do # a signal to this script ends `wait`, not the step
  code=0
  wait "$step" || code=$?
done
if [[ -n $again && $code -ne 0 ]]; then
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$code"
