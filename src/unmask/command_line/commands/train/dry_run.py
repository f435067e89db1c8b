"""``unmask train RECIPE --dry-run``: what a training will cost, which data it expects, and where these come from."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from unmask.command_line.commands.train import recipe_called
from unmask.command_line.options import Fleet, above_zero, in_range, value
from unmask.command_line.output import Report, number
from unmask.data.sources.fetch import DATASETS
from unmask.recipes import Run, papers
from unmask.recipes.run import override
from unmask.recipes.sequences import Folder
from unmask.training.costing import Cost, Spread, cost, positions

DEVICE = {"flops": 312e12, "utilisation": 0.4, "memory": 80e9}
"""Where nothing is said: an A100's products in bfloat16 and its larger memory, and a share that good programs reach."""


def run(recipe: str | None, changes: Mapping[str, str], fleet: Fleet) -> Report:
    """What the recipe with dotted fields replaced costs; needs no data. ValueError for a fleet that makes no sense."""
    if recipe is None:
        raise ValueError("--dry-run without a recipe; expected the name of one")
    for name in ("devices", "accumulate"):
        in_range(name, getattr(fleet, name), 1)
    above_zero("flops", fleet.flops)
    above_zero("utilisation", fleet.utilisation, 1)
    above_zero("memory", fleet.memory)
    wanted = override(recipe_called(recipe), changes)
    spread = spread_of(wanted, fleet)
    found = cost(wanted, spread)
    limits = {name: value(getattr(fleet, name), usual) for name, usual in DEVICE.items()}
    return {
        "command": "train --dry-run",
        "recipe": wanted.name,
        "changes": dict(changes),
        **published(wanted.name, found, bool(changes)),
        "step": step(wanted, found, spread, limits),
        "memory": memory(found, spread, limits["memory"]),
        "training": training(wanted, found, spread, limits),
        "data": data(wanted, recipe),
    }


def spread_of(wanted: Run, fleet: Fleet) -> Spread:
    """How the step is spread: as the options say, else as the run's machine does."""
    machine = wanted.machine
    return Spread(
        value(fleet.devices, 1),
        value(fleet.strategy, machine.strategy),
        value(fleet.accumulate, machine.accumulate),
        fleet.checkpointing or machine.recompute,
        machine.bfloat16 is not False,
    )


def published(name: str, found: Cost, changed: bool) -> Report:
    """Parameters beside published counts, which a changed network need not have."""
    facts = papers.FACTS.get(name)
    rows = [
        {
            "parameters": known.parameters,
            "source": known.source,
            "difference": number(
                found.parameters / known.parameters - 1, "share", "ours over published, less 1"
            ),
        }
        for known in (facts.published if facts else ())
    ]
    return {
        "parameters": number(found.parameters, "parameters", "of the network on the meta device"),
        "published": rows,
        "published_result": facts.value if facts and not changed else None,
    }


def step(wanted: Run, found: Cost, spread: Spread, limits: Mapping[str, float]) -> Report:
    """One step: how it is spread, what it computes, how long it takes."""
    seconds = found.seconds(limits["flops"], limits["utilisation"], spread.devices)
    speed = f"{limits['flops']:.4g} operations a second each, {100 * limits['utilisation']:g} % of them used"
    return {
        "batch_size": wanted.batch_size,
        "devices": spread.devices,
        "strategy": spread.strategy,
        "accumulate": spread.accumulate,
        "sequences_at_a_time": found.part,
        "checkpointing": spread.checkpointing,
        "precision": "bfloat16" if spread.bfloat16 else "float32",
        "positions": found.positions,
        "flops": number(found.flops, "operations", "products and convolutions, forward and backward"),
        "seconds": number(seconds, "seconds", f"on {spread.devices} devices of {speed}; no communication"),
    }


def memory(found: Cost, spread: Spread, limit: float) -> Report:
    """Bytes of a device by what they are for, whether they fit, and what to change if not."""
    parts = {name: float(bytes_) for name, bytes_ in vars(found.memory).items()}
    fits = found.memory.total <= limit
    return {
        **parts,
        "total": number(found.memory.total, "bytes", "at the worst moment of a step, of each device"),
        "limit": limit,
        "fits": fits,
        "hint": None if fits else hint(found, spread, limit),
    }


def hint(found: Cost, spread: Spread, limit: float) -> str:
    """What makes a step fit, by activations in proportion to the sequences at a time."""
    left = limit - (found.memory.total - found.memory.activations)
    fitting = [
        n
        for n in range(1, found.part + 1)
        if found.part % n == 0 and found.memory.activations * n / found.part <= left
    ]
    if fitting:
        return f"--accumulate {spread.accumulate * found.part // max(fitting)}, or as many times the devices"
    if not spread.checkpointing:
        return "--checkpointing: one sequence alone does not fit"
    return "--strategy fsdp on more devices" if spread.strategy == "ddp" else "more devices, or larger ones"


def training(wanted: Run, found: Cost, spread: Spread, limits: Mapping[str, float]) -> Report:
    """All steps: positions, passes over the data, operations, time."""
    steps, facts = wanted.optimiser.steps, papers.FACTS.get(wanted.name)
    seconds = steps * found.seconds(limits["flops"], limits["utilisation"], spread.devices)
    return {
        "steps": steps,
        "positions": steps * found.positions,
        "epochs": steps * found.positions / facts.symbols if facts else None,
        "flops": number(steps * found.flops, "operations", "steps times those of one"),
        "seconds": number(seconds, "seconds", "steps times those of one"),
        "device_hours": number(seconds * spread.devices / 3600, "hours", "seconds times devices / 3600"),
    }


def data(wanted: Run, recipe: str) -> Report:
    """Which data the run reads, whether they are there, where they come from and how they are prepared."""
    if not isinstance(wanted.data, Folder):
        return {"what": "made as training goes", "folder": None, "there": True, "origin": None, "prepare": []}
    facts, place = papers.FACTS.get(wanted.name), wanted.data.place
    there = (place / "manifest.json").is_file()
    name = wanted.data.folder
    about: Report = {"folder": str(place), "there": there, "sequence": positions(wanted)}
    if facts is not None:
        lines = [line.replace("RECIPE", recipe) for line in facts.prepare]
        return about | {
            "what": facts.data,
            "symbols": facts.symbols,
            "origin": facts.origin,
            "prepare": lines,
        }
    fetched = name in DATASETS
    return about | {
        "what": DATASETS[name].summary if fetched else f"a token folder {name}/train",
        "symbols": None,
        "origin": f"unmask data fetch {name}" if fetched else None,
        "prepare": [
            f"unmask data fetch {name}" if fetched else "unmask data prepare FILE --as FORMAT -o FOLDER"
        ],
    }


# --- what people read -------------------------------------------------------------------------------


def render(report: Report, console: Console) -> None:
    """Prints tables of network, step, memory and training, then the data and how they are prepared."""
    table = Table(report["recipe"], "", "", box=None)
    table.add_row("parameters", f"{report['parameters']['value']:,}", "")
    for known in report["published"]:
        table.add_row(
            "  published",
            f"{known['parameters']:,}",
            f"{100 * known['difference']['value']:+.2f} %: {known['source']}",
        )
    step, kept, whole = report["step"], report["memory"], report["training"]
    about = f"{step['devices']} x {step['accumulate']} x {step['sequences_at_a_time']} sequences"
    twice = ", blocks forward twice" if step["checkpointing"] else ""
    table.add_row("batch", f"{step['batch_size']}", f"devices x parts x at a time: {about}")
    table.add_row(
        "operations a step", f"{step['flops']['value']:.3e}", f"{step['flops']['estimator']}{twice}"
    )
    table.add_row("seconds a step", f"{step['seconds']['value']:.3g}", step["seconds"]["estimator"])
    divided = step["strategy"] == "fsdp" and step["devices"] > 1
    shared = "float32, divided among the devices" if divided else "float32"
    for name in ("parameters", "gradients", "moments", "average", "gathered", "activations"):
        how = f"{step['precision']} products" if name in ("activations", "gathered") else shared
        if kept[name]:
            table.add_row(f"  {name}", _bytes(kept[name]), how)
    verdict = "fits into" if kept["fits"] else "does NOT fit into"
    table.add_row("memory of a device", _bytes(kept["total"]["value"]), f"{verdict} {_bytes(kept['limit'])}")
    epochs = "" if whole["epochs"] is None else f", {whole['epochs']:.1f} passes over the data"
    table.add_row("training", f"{whole['steps']:,} steps", f"{whole['positions']:.3e} positions{epochs}")
    hours = f"{whole['flops']['value']:.3e} operations, {whole['device_hours']['value']:,.0f} device hours"
    table.add_row("  time", _time(whole["seconds"]["value"]), hours)
    if report["published_result"]:
        table.add_row("published result", report["published_result"], "")
    console.print(table)
    if kept["hint"]:
        console.print(f"to make it fit: {kept['hint']}")
    found = report["data"]
    console.print(f"data: {found['what']}")
    if found["folder"] is not None:
        console.print(f"  {found['folder']}: {'there' if found['there'] else 'not there yet'}")
        for line in [] if found["there"] else [f"from {found['origin']}", *found["prepare"]]:
            console.print(f"  {line}")


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.2f} GB"


def _time(seconds: float) -> str:
    """Seconds as what people count in."""
    for size, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:.1f} seconds"
