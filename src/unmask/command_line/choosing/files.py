"""Plans and samplers as files, and plans as words of an option."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from unmask.base.types import Plan
from unmask.command_line.options import Machine, Options
from unmask.data import files
from unmask.models import Model, tuned_sampler
from unmask.orders import selectors
from unmask.orders.described import reads_on
from unmask.orders.samplers import Sampler
from unmask.planning import plans
from unmask.planning.measuring import fingerprint
from unmask.variants import upscale
from unmask.version import __version__

SCALED = "scaled:"
"""Before a plan: it is for any number of positions, its boundaries at equal shares."""


def read_plan(text: str | None) -> Plan:
    """A plan from positions per call (``3``), step sizes (``3,3,2``), or a plan file; None is 1 per call.

    ``scaled:`` before step sizes or a file fits them to any number of positions (`plans.rescaled`).
    """
    if text is None:
        return 1
    if text.startswith(SCALED):
        known = read_plan(text.removeprefix(SCALED))
        return known if not isinstance(known, tuple) else partial(plans.rescaled, known)
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        return _plan_file(Path(text))
    if min(sizes) < 1:
        raise ValueError(f"--plan {text}: expected at least one position per call")
    return sizes if "," in text else sizes[0]


def plan_path(options: Options) -> Path | None:
    """What --plan names, if it could be a file."""
    return None if options.plan is None else Path(options.plan.removeprefix(SCALED))


def _plan_file(path: Path) -> tuple[int, ...]:
    """The plan of a file; ValueError names the file."""
    if path != files.STANDARD and not path.exists():
        raise ValueError(
            f"--plan {path}: no such file; expected positions per call (3), step sizes (3,3,2) or a plan file"
        )
    text = files.read_text(path, "a plan file")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "plan.json"
        copy.write_text(text, "utf-8")
        try:
            return plans.load(copy).plan
        except ValueError as error:
            raise ValueError(f"--plan {files.shown(path)}: {error}") from None


TUNED = "tuned:"
"""Before calls: the sampler of so many that comes with a model."""


def read_sampler(path: Path, model: Model) -> Sampler:
    """The sampler of a file for a model, inside its stages, or one that comes with it; ValueError names the file.

    A causal model takes none but from left to right.
    """
    found, network = _sampler(path, model), model.config["network"]
    if network.get("causal") and not reads_on(found.rule):
        raise ValueError(f"--sampler {path}: a causal model reads from left to right; expected that order")
    stages = upscale.stages_of(network)
    if stages == 1 or in_stages(found.rule, int(network["length"]) // stages):
        return found
    return replace(found, rule=selectors.in_blocks(found.selector, int(network["length"]) // stages))


def in_stages(rule: Mapping[str, Any], length: int) -> bool:
    """Whether a rule works in blocks of so many positions already, as those that are tuned for a model do."""
    return bool(rule["make"] == "selectors.in_blocks" and rule["with"].get("block_length") == length)


def _sampler(path: Path, model: Model) -> Sampler:
    calls = str(path).removeprefix(TUNED)
    try:
        if str(path).startswith(TUNED):
            if not calls.isdecimal():
                raise ValueError(f"expected {TUNED}CALLS, such as {TUNED}8")
            return tuned_sampler(model, int(calls))
        return Sampler.load(path)
    except OSError:
        raise ValueError(
            f"--sampler {path}: no such file; expected a sampler file, JSON, or {TUNED}CALLS"
        ) from None
    except ValueError as error:
        raise ValueError(f"--sampler {path}: {error}") from None


def facts(model: Model, machine: Machine, options: Options | None = None, **more: Any) -> dict[str, Any]:
    """All that the numbers of a bulk work depend on, for `Pieces.of`: tensors among ``more`` by their fingerprints."""
    told = {} if options is None else asdict(options)
    named = {} if options is None else {"plan": plan_path(options), "sampler": options.sampler}
    for name, path in named.items():
        if path is not None and path.is_file():
            told[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    data = {name: fingerprint(v) if isinstance(v, torch.Tensor) else v for name, v in more.items()}
    versions = {"version": __version__, "version of torch": torch.__version__}
    place = {"device": torch.device(machine.device).type, "batch size": machine.batch_size}
    return {"model": model.name, "weights": model.hash, **told, **data, **place, **versions}
