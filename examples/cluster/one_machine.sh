#!/usr/bin/env bash
# One training on all GPUs of this machine, or in so many processes on its CPUs.
#
#   examples/cluster/one_machine.sh text --out runs/text --batch_size 512
#   PROCESSES=2 DEVICE=cpu examples/cluster/one_machine.sh text --out runs/text
#
# What follows the script is what `unmask train` takes. The same command again goes on; Ctrl-C or SIGTERM saves first.
set -euo pipefail

processes=${PROCESSES:-$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)}
if [[ $processes -lt 1 ]]; then
  echo "no GPU here; expected one, or PROCESSES=2 DEVICE=cpu before the command" >&2
  exit 2
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(($(nproc) / processes > 0 ? $(nproc) / processes : 1))}
exec "${PYTHON:-python}" -m torch.distributed.run --standalone --nproc-per-node "$processes" \
  -m unmask train "$@" --device "${DEVICE:-cuda}"
