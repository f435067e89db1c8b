"""``unmask profile`` and ``unmask plan``: measure what visible positions tell, then spend calls where they count."""

from __future__ import annotations

import importlib.util
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unmask.base.profile import Profile
from unmask.base.records import write_bytes
from unmask.base.types import Denoiser
from unmask.command_line import boards, sequences
from unmask.command_line.options import BATCH, MACHINE, Machine, check_seed, in_range
from unmask.command_line.output import Report, number, put
from unmask.data import files, sudoku
from unmask.engine.likelihood import log_likelihood
from unmask.models import Model, load
from unmask.orders import scores, selectors
from unmask.planning import estimators, plans, profiles

Family = Callable[[int, int], tuple[int, ...]]

FAMILIES: dict[str, Family] = {
    "uniform": plans.uniform,
    "cosine": plans.cosine,
    "arccos": plans.arccos,
    "tc": plans.tc,
    "dtc": plans.dtc,
    "log_odds": plans.log_odds,
}
"""Plans that need no profile, by (length, steps)."""

FRESH_GRIDS = 2**61
"""Start of the seeds of grids to measure on; training and test puzzles use others."""


def measure(
    model_name: str,
    data: Path | None,
    *,
    num: int,
    rounds: int,
    seed: int,
    state: Path | None,
    quiet: bool,
    machine: Machine = MACHINE,
) -> tuple[Report, Profile]:
    """Measures two halves of the data; the profile is fitted to the first and carries the second, held out."""
    in_range("num", num, 2)
    in_range("rounds", rounds, 1)
    check_seed(seed)
    model = load(model_name, device=machine.device)
    tokens = grids(model, data, num, seed)
    fitted, heldout = fit(model, tokens, rounds=rounds, seed=seed, state=state, quiet=quiet, machine=machine)
    visible = model.visible(tokens)
    lengths = None if visible is None else (~visible).sum(1)
    return _report(fitted, heldout, len(tokens), lengths), fitted


def fit(
    model: Model,
    tokens: Tensor,
    *,
    rounds: int,
    seed: int,
    state: Path | None,
    quiet: bool,
    machine: Machine = MACHINE,
) -> tuple[Profile, Profile]:
    """The profile fitted to one half of tokens int64 [n, L], carrying the other, and that other half's losses."""
    if len(tokens) < 2:
        raise ValueError(f"{len(tokens)} sequences; expected at least 2, one for each half")
    first, second = (
        profiles.measure(
            model.denoiser,
            tokens[part::2].to(machine.device),
            generator=torch.Generator().manual_seed(2 * seed + part),
            rounds=rounds,
            batch_size=machine.batch_size,
            state=None if state is None else state.with_name(f"{state.name}.half{part + 1}.part"),
            quiet=quiet,
            provenance={"model": model.name, "model_hash": model.hash, "seed": seed},
            end=model.end,
        )
        for part in range(2)
    )
    return with_heldout(estimators.choose(first, second), second), second


def with_heldout(fitted: Profile, heldout: Profile) -> Profile:
    """The fitted profile with the raw losses of the held-out half in its provenance."""
    facts = fitted.provenance | {"heldout": json.loads(heldout.to_json())}
    return Profile(fitted.entropies, fitted.stderr, fitted.counts, facts, fitted.exact)


def heldout_of(profile: Profile) -> Profile:
    """The held-out losses that a profile carries; the profile itself when it is exact or carries none."""
    stored = profile.provenance.get("heldout")
    return profile if stored is None else Profile.from_json(json.dumps(stored))


def read_profile(path: Path) -> Profile:
    """The profile in a file, or from standard input; ValueError names the file."""
    text = files.read_text(path, "a profile that `unmask profile` wrote")
    try:
        return Profile.from_json(text)
    except ValueError as error:
        raise ValueError(f"{files.shown(path)}: {error}") from None


def save_plan(path: Path, plan: tuple[int, ...], profile: Profile) -> None:
    """Writes the optimal plan as a file, or to standard output."""
    if path != files.STANDARD:
        plans.save(path, plan, family="optimal", profile=profile)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "plan.json"
        plans.save(copy, plan, family="optimal", profile=profile)
        put(path, copy.read_bytes())


def infilling(profile: Profile, visible: int) -> Profile:
    """The profile, and the held-out losses it carries, when ``visible`` positions are given."""
    in_range("visible", visible, 0, profile.length - 1)
    if visible == 0:
        return profile
    heldout = heldout_of(profile)
    rest = profiles.conditioned(profile, visible)
    return rest if heldout is profile else with_heldout(rest, profiles.conditioned(heldout, visible))


def grids(model: Model, data: Path | None, num: int, seed: int) -> Tensor:
    """Clean sequences to measure on: the solutions of a puzzle file, or ``num`` fresh grids."""
    if model.name != "sudoku":
        if data is None:
            raise ValueError(
                f"no data for model '{model.name}': expected a token folder or text it was not trained on"
            )
        return sequences.read(model, data, num, seed).tokens
    if data is None:
        return torch.as_tensor(sudoku.full_grids(num, FRESH_GRIDS + seed))
    posed = boards.read(data)
    full = posed.puzzles if posed.solutions is None else posed.solutions
    if bool((full == sudoku.BLANK).any()):
        raise ValueError(
            f"{files.shown(data)} has blanks and no solutions; expected full grids, or puzzles with solutions"
        )
    return full


def _report(fitted: Profile, heldout: Profile, count: int, lengths: Tensor | None) -> Report:
    """What the measurement says, in nats of a sequence of full length; where lengths differ, also of one of mean length."""
    mean = None if lengths is None else max(1, round(float(lengths.double().mean())))
    at_mean = None
    if mean is not None:
        shorter = (profiles.resampled(profile, mean) for profile in (fitted, heldout))
        at_mean = {"length": mean} | _nats(*shorter)
    gap, error = profiles.calibration(heldout)
    return {
        "command": "profile",
        "model": fitted.provenance["model"],
        "sequences": count,
        "length": fitted.length,
        "estimator": fitted.provenance["estimator"],
        "unit": "nats",
        **_nats(fitted, heldout),
        "at_mean_length": at_mean,
        "calibration": {
            "value": gap,
            "stderr": error,
            "of": "cross-entropy minus model entropy per position",
        },
    }


NATS = {
    "bound": "code length, one position per call (held out)",
    "total_correlation": "total correlation",
    "dual_total_correlation": "dual total correlation",
    "mixed": "mixed",
}
"""How the numbers of a profile are called."""


def _nats(fitted: Profile, heldout: Profile) -> dict[str, float]:
    """What a whole sequence of the profile's length amounts to, nats."""
    return {
        "bound": heldout.entropy,
        "total_correlation": fitted.total_correlation,
        "dual_total_correlation": fitted.dual_total_correlation,
        "mixed": fitted.mixed,
    }


def render_profile(report: Report, console: Console) -> None:
    """Prints the summary of a measured profile."""
    console.print(
        f"{report['model']}: {report['sequences']} sequences of {report['length']} positions, "
        f"fitted by {report['estimator']}, costs judged on the held-out half"
    )
    shorter = report["at_mean_length"]
    columns = [report] if shorter is None else [report, shorter]
    table = Table("", *(f"nats, length {found['length']}" for found in columns), box=None)
    for name, label in NATS.items():
        table.add_row(label, *(f"{found[name]:.3f}" for found in columns))
    gap = report["calibration"]
    table.add_row(f"calibration: {gap['of']}", f"{gap['value']:.4f} +- {gap['stderr']:.4f}")
    console.print(table)
    if shorter is not None:
        console.print(
            f"Lengths differ: {report['length']} is the longest that the model has, {shorter['length']} their mean."
        )


def compare(profile: Profile, *, steps: int | None, max_kl: float | None) -> tuple[Report, tuple[int, ...]]:
    """Every family at a budget of calls or of nats, and the optimal plan; costs from the held-out losses."""
    if (steps is None) == (max_kl is None):
        raise ValueError("expected --steps K or --max-kl NATS, one of the two")
    in_range("steps", steps, 1, profile.length)
    in_range("max_kl", max_kl, 0)
    heldout = heldout_of(profile)
    best = plans.optimal(profile, steps=steps) if steps is not None else plans.optimal(profile, max_kl=max_kl)
    chosen = {name: _at(family, heldout, steps, max_kl) for name, family in FAMILIES.items()} | {
        "optimal": best
    }
    rows = [_row(name, plan, profile, heldout) for name, plan in chosen.items()]
    budget = {"steps": steps} if steps is not None else {"max_kl": max_kl}
    return {"command": "plan", "budget": budget, "length": profile.length, "kl": KIND, "families": rows}, best


def realised(denoiser: Denoiser, tokens: Tensor, plan: tuple[int, ...], alone: Tensor, seed: int) -> Report:
    """What a plan really costs on clean tokens int64 [n, L]: nats over ``alone``, one position per call [n].

    Mean over sequences, each in its own random order, and its standard error.
    """
    excess = alone - in_random_order(denoiser, tokens, plan, seed)
    error = float(excess.std()) / len(excess) ** 0.5
    return number(
        float(excess.mean()),
        "nats per sequence",
        "log-likelihood one by one minus under the plan",
        stderr=error,
    )


def in_random_order(denoiser: Denoiser, tokens: Tensor, plan: tuple[int, ...], seed: int) -> Tensor:
    """Log-likelihood float64 [n], nats, of each sequence in its own random order under a plan."""
    selector = selectors.top_k(scores.at_random(seed), plan)
    ids = torch.arange(len(tokens))
    parts = [
        log_likelihood(denoiser, tokens[part], selector, order_ids=ids[part])
        for part in (slice(i, i + BATCH) for i in range(0, len(tokens), BATCH))
    ]
    return torch.cat(parts)


KIND = "nats per sequence, order disclosed; for a measured profile, excess over one position per call on held-out data"


def _at(family: Family, heldout: Profile, steps: int | None, max_kl: float | None) -> tuple[int, ...]:
    """The family's plan with this many calls, or with the fewest that keep the held-out cost under max_kl."""
    if steps is not None:
        return family(heldout.length, steps)
    enough, too_few = heldout.length, 0
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        low = heldout.kl(family(heldout.length, middle)) <= (max_kl or 0.0)
        enough, too_few = (middle, too_few) if low else (enough, middle)
    return family(heldout.length, enough)


def _row(name: str, plan: tuple[int, ...], profile: Profile, heldout: Profile) -> Report:
    """A family's plan, its cost on held-out losses, and its certificate by the fitted profile."""
    bounds = plans.describe(plan, profile).bounds
    return {
        "family": name,
        "calls": len(plan),
        "kl": heldout.kl(plan),
        "stderr": heldout.kl_stderr(plan),
        "certificate": min(bounds[k] for k in ("rho TC", "rho DTC", "rho M")),
        "plan": list(plan),
    }


def render_plans(report: Report, console: Console) -> None:
    """Prints one line a family: calls, expected KL, certificate and sizes."""
    table = Table("family", "calls", "KL (nats)", "certificate", "sizes", box=None)
    for row in report["families"]:
        error = "" if not row["stderr"] else f" +- {row['stderr']:.3f}"
        sizes = " ".join(map(str, row["plan"][:16])) + (" ..." if len(row["plan"]) > 16 else "")
        table.add_row(
            row["family"], str(row["calls"]), f"{row['kl']:.4f}{error}", f"{row['certificate']:.3f}", sizes
        )
    console.print(table)
    console.print(f"KL: {report['kl']}. Certificate: the smallest of rho TC, rho DTC and rho M.")


def draw(profile: Profile, chosen: dict[str, tuple[int, ...]], path: Path) -> None:
    """Draws the profile and each plan as a staircase over it (PNG, SVG or PDF): the area between is the KL."""
    check_plot(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="positions already visible", ylabel="nats per masked position")
    axes.plot(range(profile.length), profile.entropies, color="black", label="profile h(i)")
    for name, plan in chosen.items():
        edges = plans.boundaries(plan)
        levels = [float(profile.entropies[a]) for a in edges[:-1]]
        axes.stairs(
            levels, edges, baseline=None, label=f"{name}: {len(plan)} calls, {profile.kl(plan):.3g} nats"
        )
    axes.legend()
    data = io.BytesIO()
    figure.savefig(data, format=path.suffix[1:])
    write_bytes(path, data.getvalue())


def check_plot(path: Path | None) -> None:
    """ValueError for a name that nothing can be drawn to, ImportError where nothing can be drawn; before any work."""
    if path is None:
        return
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--plot {path}: expected the name of a file that ends in .png, .svg or .pdf")
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("drawing needs matplotlib: pip install 'unmask[plots]'")
