"""The scripts of examples/cluster, with stand-ins for Slurm: what they start, how they stop, when a job is queued again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PLACE = Path(__file__).parent.parent / "examples" / "cluster"

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not PLACE.is_dir() or shutil.which("bash") is None, reason="needs bash"
)

STANDINS = {
    "srun": '[[ $1 == --kill-on-bad-exit=1 ]] && shift\nexec "$@"',
    # the second name comes late: who stops reading after the first ends it by SIGPIPE
    "scontrol": 'if [[ $1 == show ]]; then echo first; sleep 0.1; echo second; else echo "$@" >> "$SAID"; fi',
    "torchrun": """echo "torchrun $OMP_NUM_THREADS $*" >> "$SAID"
trap 'echo saved >> "$SAID"; exit 130' TERM
if [[ $HOLD == yes ]]; then for _ in {1..200}; do sleep 0.05; done; fi
exit "$END\"""",
}


@pytest.fixture
def slurm(tmp_path):
    """Starts the script with stand-ins and arguments; gives the process and the file of what was said."""
    for name, body in STANDINS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    said = tmp_path / "said"
    job = {
        "SLURM_JOB_NODELIST": "x",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_PER_TASK": "32",
    }
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    def start(hold=False, end=0):
        own = {"PATH": path, "SAID": str(said), "HOLD": "yes" if hold else "", "END": str(end)}
        words = ["bash", str(PLACE / "slurm.sh"), "text", "--out", "a b"]
        process = subprocess.Popen(words, env=os.environ | job | own)
        limit = time.monotonic() + 30
        while hold and not (said.exists() and said.read_text()) and time.monotonic() < limit:
            time.sleep(0.02)
        return process, said

    return start


@pytest.mark.parametrize(
    ("number", "expected", "code"), [("SIGUSR1", "saved\nrequeue 7\n", 0), ("SIGTERM", "saved\n", 130)]
)
def test_a_job_that_is_told_to_stop_saves_and_is_queued_again_once(slurm, number, expected, code):
    """By this script where its time is over, by Slurm itself where it is preempted."""
    process, said = slurm(hold=True)
    process.send_signal(getattr(signal, number))
    assert process.wait(30) == code
    assert said.read_text().split("\n", 1)[1] == expected


@pytest.mark.parametrize("end", [0, 2])
def test_a_job_that_ends_is_not_queued_again(slurm, end):
    process, said = slurm(end=end)
    assert process.wait(30) == end
    assert said.read_text() == (
        "torchrun 4 --nnodes 2 --nproc-per-node 8 --rdzv-id 7 --rdzv-backend c10d --rdzv-endpoint first:29500 "
        "-m unmask train text --out a b --device cuda --quiet\n"
    )


def test_one_machine_without_a_gpu_says_what_to_do(tmp_path):
    """The fake nvidia-smi lists none."""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", str(PLACE / "one_machine.sh"), "text"], env=os.environ | path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "PROCESSES=2 DEVICE=cpu" in done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck_finds_nothing():
    done = subprocess.run(["shellcheck", *map(str, PLACE.glob("*.sh"))], capture_output=True, text=True)
    assert done.stdout == ""
