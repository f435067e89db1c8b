"""``unmask doctor``: what this machine and installation can do, and whether the engine agrees with itself."""

from __future__ import annotations

import importlib.util
import math
import os
import platform
import shutil
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

import unmask
from unmask import laws
from unmask.base.progress import Progress
from unmask.command_line.output import Report
from unmask.data import sudoku
from unmask.engine.likelihood import log_likelihood, nelbo
from unmask.engine.sampling import sample
from unmask.models import Model, load, shipped
from unmask.orders import scores, selectors

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "safetensors",
    "tyro",
    "rich",
    "constriction",
    "backports.zstd",
    "numba",
    "matplotlib",
)
GRID = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
"""A full grid, whose symmetry copies are the probe of Sudoku models."""


def run() -> Report:
    """Versions, devices, room, and checks; ``ok`` is False when a check fails."""
    wanted = {"engine": engine} | {f"model {name}": partial(probe, name) for name in shipped()}
    with Progress("doctor", len(wanted)) as progress:
        checks = []
        for name, check in wanted.items():
            checks.append(_check(name, check))
            progress.advance(len(checks))
    return {
        "command": "doctor",
        "ok": all(c["ok"] for c in checks),
        "unmask": unmask.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": devices(),
        "threads": {"torch": torch.get_num_threads(), "cores": os.cpu_count()},
        "memory_gb": _memory(),
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "models": shipped(),
        "checks": checks,
    }


def engine() -> str:
    """Draws from an exact law: log-probability of sampler, likelihood and law must be one number."""
    law, selector = laws.Permutation(6), selectors.top_k(scores.margin, 1)
    drawn = sample(
        law, torch.full((64, 6), law.mask_id), selector, generator=torch.Generator().manual_seed(0)
    )
    replayed = log_likelihood(law, drawn.tokens, selector, order_ids=torch.arange(64))
    gap = max(float((value - drawn.log_prob).abs().max()) for value in (replayed, law.log_prob(drawn.tokens)))
    if not gap < 1e-9:
        raise ValueError(f"log-probabilities of samples differ by {gap:.2g} nats; expected less than 1e-9")
    return f"sampler, likelihood and exact law agree within {gap:.1g} nats"


def probe(name: str) -> str:
    """A shipped model must know data of its kind better than chance: NELBO per position below ln V nats."""
    model = load(name)
    if model.name not in PROBES:
        return "loads; no probe data for it"
    tokens = PROBES[model.name](model)
    visible, generator = model.visible(tokens), torch.Generator().manual_seed(0)
    bound = nelbo(model.denoiser, tokens, generator=generator, samples=4, visible=visible)
    symbols = tokens.numel() if visible is None else int((~visible).sum())
    found, chance = float(bound.value.sum()) / symbols, math.log(model.denoiser.vocab_size)
    if not found < chance:
        raise ValueError(
            f"NELBO {found:.3f} nats per position, not below chance, {chance:.3f}; install the package again"
        )
    return f"NELBO {found:.3f} nats per position of {len(tokens)} sequences (chance {chance:.3f})"


MOLECULES = (
    "CC(=O)Oc1ccccc1C(=O)O",
    "CC(=O)Nc1ccc(O)cc1",
    "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "CC(C)Cc1ccc(C(C)C(=O)O)cc1",
)
"""Aspirin, paracetamol, caffeine and ibuprofen."""

PROSE = "it is a truth universally acknowledged that a single man in possession of a good fortune must be in want of "

RECORD = (
    b'{"appName":"Netscape","connection":{"downlink":10,"effectiveType":"4g","rtt":50},"language":"en-US",'
    b'"platform":"Linux x86_64","pluginsLength":0}'
)


def _stroke(model: Model) -> Tensor:
    """An image that could be a one."""
    image = np.zeros((1, 28, 28), np.uint8)
    image[:, 5:23, 13:15] = 253
    return model.encode(image)


def _grids(model: Model) -> Tensor:
    """Symmetry copies of one full grid."""
    return sudoku.symmetries(model.encode([GRID] * 16), seed=0)


PROBES: dict[str, Callable[[Model], Tensor]] = {
    "sudoku": _grids,
    "sudoku_hard": _grids,
    "sudoku_equivariant": _grids,
    "molecules": lambda model: model.encode(MOLECULES),
    "text": lambda model: model.encode((PROSE * 3)[: model.length]),
    "records": lambda model: model.encode([RECORD]),
    "digits": _stroke,
}


def devices() -> list[str]:
    """Devices that torch can compute on."""
    names = ["cpu"]
    names += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return names + (["mps"] if torch.backends.mps.is_available() else [])


def _check(name: str, check: Callable[[], str]) -> Report:
    """A check's outcome: what it found, or what is wrong."""
    try:
        return {"name": name, "ok": True, "found": check()}
    except (ValueError, OSError, RuntimeError) as error:
        return {"name": name, "ok": False, "found": str(error)}


def _version(package: str) -> str | None:
    """A package's version, None when it is not installed."""
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _memory() -> float | None:
    """Physical memory in GB (10^9 bytes), None where the system does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def render(report: Report, console: Console) -> None:
    """Prints one line a fact, then one a check."""
    table = Table(box=None, show_header=False)
    table.add_row("unmask", f"{report['unmask']}, Python {report['python']}, {report['platform']}")
    table.add_row("packages", ", ".join(f"{k} {v or 'missing'}" for k, v in report["packages"].items()))
    table.add_row("devices", ", ".join(report["devices"]))
    table.add_row("threads", f"{report['threads']['torch']} of {report['threads']['cores']} cores")
    table.add_row("memory", f"{report['memory_gb'] or '?'} GB")
    table.add_row("disk", f"{report['disk_free_gb']} GB free here")
    table.add_row("models", ", ".join(report["models"]) or "none")
    for check in report["checks"]:
        mark = ("ok    ", "green") if check["ok"] else ("FAILED", "red")
        table.add_row(check["name"], Text.assemble(mark, " ", check["found"]))
    console.print(table)
