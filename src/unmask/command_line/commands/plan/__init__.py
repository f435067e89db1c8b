"""``unmask profile`` and ``unmask plan``: measure what visible positions tell, then spend calls where they count."""

from __future__ import annotations

import importlib.util
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unmask.base import noise
from unmask.base.profile import Profile
from unmask.base.progress import IN_TURN, Pieces
from unmask.base.records import write_bytes
from unmask.base.types import Denoiser
from unmask.command_line import boards, sequences
from unmask.command_line.choosing.files import facts
from unmask.command_line.options import BATCH, MACHINE, Machine, check_seed, in_range
from unmask.command_line.output import Report, number, put
from unmask.data import files, sudoku
from unmask.engine.likelihood import log_likelihood
from unmask.models import Model, load, verbs
from unmask.orders import scores, selectors
from unmask.planning import plans, profiles

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
    rounds: int | None,
    seed: int,
    state: Path | None,
    quiet: bool,
    machine: Machine = MACHINE,
    pieces: Pieces = IN_TURN,
) -> tuple[Report, Profile]:
    """Measures two halves of the data; the profile is fitted to the first and carries the second, held out."""
    in_range("num", num, 2)
    in_range("rounds", rounds, 1)
    check_seed(seed)
    model = load(model_name, device=machine.device)
    tokens = grids(model, data, num, seed)
    if pieces.shared:
        pieces.of(**facts(model, machine, command="profile", rounds=rounds, seed=seed, data=tokens))
    fitted, heldout = verbs.halves(
        model,
        tokens,
        rounds=rounds,
        seed=seed,
        batch_size=machine.batch_size,
        state=None if pieces.shared else state,
        quiet=quiet,
        pieces=pieces,
    )
    visible = model.visible(tokens)
    lengths = None if visible is None else (~visible).sum(1)
    return _report(fitted, heldout, len(tokens), lengths), fitted


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
    return profile if visible == 0 else profiles.conditioned(profile, visible)


def grids(model: Model, data: Path | None, num: int, seed: int) -> Tensor:
    """Clean sequences to measure on: the solutions of a puzzle file, or ``num`` fresh grids."""
    if not model.sudoku:
        if data is None:
            raise ValueError(
                f"no data for model '{model.name}': expected a token folder or text it was not trained on"
            )
        return sequences.read(model, data, num, seed).tokens
    if data is None:
        return torch.as_tensor(
            sudoku.full_grids(num, FRESH_GRIDS + noise.narrowed(seed, 60), cells=model.length)
        )
    posed = boards.read(data, model.length)
    full = posed.puzzles if posed.solutions is None else posed.solutions
    if bool((full == model.denoiser.mask_id).any()):
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
        "entropies": fitted.entropies.tolist(),
        "provenance": fitted.provenance,
    }


NATS = {
    "bound": "code length, one position per call (held out)",
    "one_call": "KL of one call for all, predicted, 95 %",
    "total_correlation": "total correlation",
    "dual_total_correlation": "dual total correlation",
    "mixed": "mixed",
}
"""How the numbers of a profile are called."""


def _nats(fitted: Profile, heldout: Profile) -> Report:
    """What a whole sequence of the profile's length amounts to, nats."""
    return {
        "bound": heldout.entropy,
        "one_call": predicted(heldout, (heldout.length,)),
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
        table.add_row(label, *map(_said, (found[name] for found in columns)))
    gap = report["calibration"]
    table.add_row(f"calibration: {gap['of']}", f"{gap['value']:.4f} +- {gap['stderr']:.4f}")
    console.print(table)
    if shorter is not None:
        console.print(
            f"Lengths differ: {report['length']} is the longest that the model has, {shorter['length']} their mean."
        )


def compare(profile: Profile, *, steps: int | None, max_kl: float | None) -> tuple[Report, tuple[int, ...]]:
    """Every family at a budget of calls or of nats, and the optimal plan: by the profile, judged on its held-out half."""
    if (steps is None) == (max_kl is None):
        raise ValueError("expected --steps K or --max-kl NATS, one of the two")
    in_range("steps", steps, 1, profile.length)
    in_range("max_kl", max_kl, 0)
    best = plans.optimal(profile, steps=steps) if steps is not None else plans.optimal(profile, max_kl=max_kl)
    chosen = {name: _at(family, profile, steps, max_kl) for name, family in FAMILIES.items()} | {
        "optimal": best
    }
    rows = [_row(name, plan, profile) for name, plan in chosen.items()]
    budget = {"steps": steps} if steps is not None else {"max_kl": max_kl}
    return {
        "command": "plan",
        "budget": budget,
        "length": profile.length,
        "kl": PREDICTED,
        "families": rows,
    }, best


def realised(denoiser: Denoiser, tokens: Tensor, plan: tuple[int, ...], alone: Tensor, seed: int) -> Report:
    """What a plan really costs on clean tokens int64 [n, L]: nats over ``alone``, one position per call [n].

    See `REALISED`. Mean over sequences, each in its own random order, and its standard error.
    """
    excess = alone - in_random_order(denoiser, tokens, plan, seed)
    error = float(excess.std()) / len(excess) ** 0.5
    return number(float(excess.mean()), "nats per sequence", REALISED, stderr=error)


def in_random_order(denoiser: Denoiser, tokens: Tensor, plan: tuple[int, ...], seed: int) -> Tensor:
    """Log-likelihood float64 [n], nats, of each sequence in its own random order under a plan."""
    selector = selectors.top_k(scores.at_random(seed), plan)
    ids = torch.arange(len(tokens))
    parts = [
        log_likelihood(denoiser, tokens[part], selector, order_ids=ids[part])
        for part in (slice(i, i + BATCH) for i in range(0, len(tokens), BATCH))
    ]
    return torch.cat(parts)


PREDICTED = (
    "nats per sequence over one position per call, order disclosed, mean over random orders; of a measured profile from "
    "its held-out half, which the plan has not seen; the model's own error, paid at one position per call too, left out"
)
"""What a predicted cost is."""

REALISED = (
    "log-likelihood one position per call minus that under the plan, of sequences scored now, each in one random order "
    "(disclosed, the same for both); the model's own error, in both, left out"
)
"""What a realised cost is."""

UNKNOWN = (
    "not known: the profile has neither standard errors nor a held-out half; measure it with `unmask profile`"
)
"""What is said where a prediction has no interval."""


def predicted(profile: Profile, plan: tuple[int, ...]) -> Report:
    """What a plan should cost by the held-out half of a profile, with its standard error and 95 % interval."""
    said = plans.describe(plan, profile)
    return number(said.kl, "nats per sequence", PREDICTED, stderr=said.kl_stderr, interval=said.interval)


def _said(value: float | Report) -> str:
    """A number of nats, or a predicted cost with its interval."""
    return cost(value, 3) if isinstance(value, dict) else f"{value:.3f}"


def cost(said: Report, digits: int = 2) -> str:
    """A predicted cost as ``4.40 [3.21, 5.59]``; alone where it is exact, with [?] where no interval is known."""
    value, (low, high) = f"{said['value']:.{digits}f}", said["interval"] or (None, None)
    if low is None:
        return f"{value} [?]"
    return value if low == high else f"{value} [{low:.{digits}f}, {high:.{digits}f}]"


def _at(family: Family, profile: Profile, steps: int | None, max_kl: float | None) -> tuple[int, ...]:
    """The family's plan with this many calls, or with the fewest that the profile says to keep its cost under max_kl."""
    if steps is not None:
        return family(profile.length, steps)
    enough, too_few = profile.length, 0
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        low = profile.kl(family(profile.length, middle)) <= (max_kl or 0.0)
        enough, too_few = (middle, too_few) if low else (enough, middle)
    return family(profile.length, enough)


def _row(name: str, plan: tuple[int, ...], profile: Profile) -> Report:
    """A family's plan, its cost on held-out losses, and its certificate by the fitted profile."""
    said = plans.describe(plan, profile)
    return {
        "family": name,
        "calls": said.calls,
        "kl": said.kl,
        "stderr": said.kl_stderr,
        "interval": said.interval,
        "certificate": min(said.bounds[k] for k in ("rho TC", "rho DTC", "rho M")),
        "plan": list(plan),
    }


def render_plans(report: Report, console: Console) -> None:
    """Prints one line a family: calls, expected KL, certificate and sizes."""
    table = Table("family", "calls", "predicted KL, 95 %", "certificate", "sizes", box=None)
    for row in report["families"]:
        sizes = " ".join(map(str, row["plan"][:16])) + (" ..." if len(row["plan"]) > 16 else "")
        table.add_row(
            row["family"],
            str(row["calls"]),
            cost({"value": row["kl"], "interval": row["interval"]}, 3),
            f"{row['certificate']:.3f}",
            sizes,
        )
    console.print(table)
    console.print(f"Predicted: {report['kl']}. Certificate: the smallest of rho TC, rho DTC and rho M.")
    if any(row["interval"] is None for row in report["families"]):
        console.print(f"The 95 % interval is {UNKNOWN}.")


def draw(profile: Profile, chosen: dict[str, tuple[int, ...]], path: Path) -> None:
    """Draws the profile and each plan as a staircase over it (PNG, SVG or PDF): the area between is the KL.

    The legend says what each costs by the held-out half, with 95 % intervals.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="positions already visible", ylabel="nats per masked position")
    axes.plot(range(profile.length), profile.entropies, color="black", label="profile h(i)")
    for name, plan in chosen.items():
        edges = plans.boundaries(plan)
        levels = [float(profile.entropies[a]) for a in edges[:-1]]
        label = f"{name}: {len(plan)} calls, {cost(predicted(profile, plan))} nats"
        axes.stairs(levels, edges, baseline=None, label=label)
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
