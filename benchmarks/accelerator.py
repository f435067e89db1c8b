"""One command for a device that is lent for minutes: is the core right there, how fast is it, and better weights.

Run: python benchmarks/accelerator.py [--device cuda] [--minutes 12] [--out FOLDER] [--small] [--models text ..] [--write]
The folder (or $OUT) gets ``accelerator_DATE.md`` and ``.json`` after every row and ``NAME.tar`` of every model that became
better, at most eight files of 16 MiB; whatever is killed loses the row that it was at. ``--small --device cpu --minutes 2``
does the same with small networks. Exit code 1 where a check fails.

What the machine needs. Data of the models that are to be trained: ``UNMASK_CACHE=runs/cache unmask data fetch text`` where
there is a network, the folder carried along, and the same variable there. Packages that a machine lacks which has torch
and numpy: by the same version of Python, ``pip download -d runs/wheels --only-binary :all: --no-deps constriction tyro
typeguard docstring-parser rich markdown-it-py mdurl pygments safetensors scipy backports.zstd`` (37 MB; tree and wheels
together at most 64 MiB), and there ``pip install --no-index --find-links runs/wheels --no-deps runs/wheels/*.whl`` with
``PYTHONPATH=src``. Better weights: ``tar -xf NAME.tar -C src/unmask/pretrained``, then measure the shipped copy.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import io
import itertools
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import overhead
import record
import ship
import torch
import training_speed
from torch import Tensor

import unmask
from unmask import laws, recipes
from unmask.base import checkpoints, devices, records
from unmask.codec.inspection import inspect
from unmask.codec.subjects import of_model
from unmask.models.pretrained import pretrained_folder, shipped
from unmask.networks import Transformer
from unmask.orders import presets
from unmask.recipes import Machine, Run
from unmask.recipes.run import tuples
from unmask.recipes.sequences import Folder
from unmask.training import state, train
from unmask.training.costing import Spread, cost
from unmask.training.loop import update
from unmask.training.together.world import ALONE

Row = dict[str, Any]

STEPS = overhead.STEPS
SIGHTED, BLIND, SHARE = 1.05, 0.5, 0.4
"""Aims: time of a sighted and of a blind order over that of bare passes, and share of the peak that training reaches."""

PEAKS = {
    "H200": 989.5e12,
    "H100 PCIe": 756e12,
    "H100": 989.5e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}
"""Operations a second in bfloat16, without sparsity, that makers state, by a part of the device's name."""

MOST_FILES, MOST_BYTES = 8, 16 * 2**20
TEXTS = [
    f"{who} was not at home and the door had been left open by {whom} {when}"
    for who in ("she", "the king", "nobody")
    for whom in ("the last of the servants", "his own brother")
    for when in ("that very evening", "long before")
]
"""What the archive holds, in the 27 symbols of the model."""

NOTES = """
{minutes:g} minutes in all on `{device}` ({name}){small}. Core: {core}
Sampling: `unmask.sample` of {steps} steps from all masked over {steps} bare calls of `network(tokens)`, head at every
position, in turn; medians; sighted `confidence` (aim {sighted}), blind `random` (aim {blind}), in {precision}. Throughput:
one optimiser step (`update`) on random tokens, operations by `training.costing`; the peak is what the maker states or,
where it is unknown, what a product of two large matrices reaches here (aim {share:.0%}). Archive: the `text` model in
float64 on the device, read again by a process that sees the CPU only. Training: from the shipped weights; value: the
recipe's own objective, nats a position, on held-out batches, the same before and after, of the half-precision copy;
interval: 95 % of the paired differences over batches; kept only when better by more.
"""


@dataclass(frozen=True)
class Job:
    """What a section may use: the options, and the moments (`time.monotonic`) at which it and all have to be done."""

    device: str
    small: bool
    models: tuple[str, ...]
    out: Path
    until: float
    end: float

    def left(self) -> float:
        """Seconds that are left."""
        return self.until - time.monotonic()

    def sync(self) -> None:
        """Waits for the device."""
        if (kind := devices.kind_of(self.device)) != "cpu":
            torch.get_device_module(kind).synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        """How long work takes on the device."""
        self.sync()
        began = time.perf_counter()
        work()
        self.sync()
        return time.perf_counter() - began


def main() -> int:
    """Runs the sections within the minutes; 1 where something failed."""
    options = arguments()
    if options.read:
        print(json.dumps(list(unmask.decompress(unmask.load("text"), sys.stdin.buffer.read()))))
        return 0
    began, total = time.monotonic(), 60 * options.minutes
    devices.check_device(options.device)
    if options.compiled:
        alone = Job(options.device, options.small, (), options.out, began + total, began + total)
        print(json.dumps(step_row(alone, True, options.compiled)))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, total)
    parts: dict[str, list[Row]] = {}
    try:
        everything(options, began, total, parts)
    except TimeoutError as error:  # between two sections
        print(error)
    signal.setitimer(signal.ITIMER_REAL, 0)
    save(options, parts)
    print(f"{time.monotonic() - began:.0f} of {total:.0f} s; {options.out}")
    return int("FAILED" in json.dumps(parts))


def late(*_: object) -> None:
    """The end of all minutes, whatever is being done."""
    raise TimeoutError("the minutes are over")


def everything(options: argparse.Namespace, began: float, total: float, parts: dict[str, list[Row]]) -> None:
    """All sections, one after another, each row printed and saved."""
    for title, (work, least, share) in SECTIONS.items():
        until = min(began + total, time.monotonic() + share * total)
        job = Job(options.device, options.small, tuple(options.models), options.out, until, began + total)
        parts[title] = []
        for row in guarded(title, work, job, least if not options.small else least / 4):
            parts[title].append(row)
            print(
                title, "|", ", ".join(f"{k} {record._cell(v)}" for k, v in row.items() if v != ""), flush=True
            )
            save(options, parts)


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "runs/accelerator"))
    parser.add_argument("--small", action="store_true", help="small networks, for a CPU")
    parser.add_argument("--models", nargs="*", default=list(shipped()), help="to train, in this order")
    parser.add_argument("--write", action="store_true", help="also among the records of this folder")
    parser.add_argument("--compiled", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    return parser.parse_args()


def guarded(title: str, work: Callable[[Job], Iterator[Row]], job: Job, least: float) -> Iterator[Row]:
    """The rows of a section, or one that says why there are none; what fails ends the section and no more."""
    if job.left() < least:
        yield {"what": title, "note": f"skipped: {max(job.left(), 0):.0f} s are left, {least:.0f} are needed"}
        return
    try:
        yield from work(job)
    except TimeoutError as error:
        yield {"what": title, "note": f"skipped: {error}"}
    except Exception as error:
        yield {"what": title, "note": f"FAILED: {checkpoints.one_line(error)}"}


def save(options: argparse.Namespace, parts: dict[str, list[Row]]) -> None:
    """The record so far, written aside and renamed; with --write also among the records."""
    kind = devices.kind_of(options.device)
    name = "no accelerator: a run on the CPU" if kind == "cpu" else name_of(kind)
    notes = NOTES.format(
        minutes=options.minutes,
        device=options.device,
        name=name,
        small=", small networks: what it says of speed is of no use" if options.small else "",
        core=CORE,
        steps=STEPS,
        sighted=SIGHTED,
        blind=BLIND,
        share=SHARE,
        precision="bfloat16" if devices.has_bfloat16(options.device) else "float32",
    )
    even = {title: evened(rows) for title, rows in parts.items() if rows}
    usual = record.FOLDER
    for place in [options.out] + [usual] * options.write:
        with tempfile.TemporaryDirectory(dir=options.out) as aside:
            record.FOLDER = Path(aside)
            question = "accelerator_cpu" if kind == "cpu" else "accelerator"
            record.write_parts(question, even, notes)
            for path in Path(aside).iterdir():
                records.write_bytes(place / path.name, path.read_bytes())
    record.FOLDER = usual


def name_of(kind: str) -> str:
    """What a kind of device calls itself, where it does."""
    return str(getattr(torch.get_device_module(kind), "get_device_name", lambda: kind)())


def evened(rows: list[Row]) -> list[Row]:
    """Rows of the same columns, the note last."""
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if n != "note"]
    return [{n: row.get(n, "") for n in (*names, "note")} for row in rows]


# --- is the core right there? -----------------------------------------------------------------------

CORE = """along any order the one-at-a-time likelihood of exact laws is their joint law, and that of a random network sums
to one over all sequences and is what the CPU finds; draws follow it (chi-square, 5 standard deviations)."""


def core(job: Job) -> Iterator[Row]:
    """Engine, orders and draws on the device, against what is known."""
    known = {
        "markov": laws.Markov([0.5, 0.3, 0.2], [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]], 5),
        "permutation": laws.Permutation(4),
    }
    for name, law in known.items():
        if job.left() < 0:
            yield {"what": name, "note": "skipped: no time is left"}
            continue
        tokens = law.sample(32, torch.Generator().manual_seed(0)).to(job.device)
        joint = law.log_prob(tokens)
        for order, selector in ORDERS.items():
            found = unmask.log_likelihood(law, tokens, selector)
            yield verdict(f"{name}, {order}: joint law", float((found - joint).abs().max()), 1e-9, "nats")
    network = small_network()
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))
    here, there = (denoiser_on(network, device) for device in (job.device, "cpu"))
    for order, selector in ORDERS.items():
        if job.left() < 0:
            yield {"what": f"network, {order}", "note": "skipped: no time is left"}
            continue
        found = unmask.log_likelihood(here, every.to(job.device), selector).cpu().double()
        total = abs(float(found.exp().sum()) - 1)
        yield verdict(f"network, {order}: sums to one", total, 1e-4, "of 1")
        apart = (found - unmask.log_likelihood(there, every, selector)).abs().max()
        yield verdict(f"network, {order}: as on the CPU", float(apart), 1e-3, "nats")
        yield verdict(
            f"network, {order}: draws follow it", surprise(here, selector, found, job), 5.0, "deviations"
        )


def verdict(what: str, found: float, most: float, unit: str) -> Row:
    """A check as a row."""
    return {
        "what": what,
        "found": found,
        "at most": most,
        "unit": unit,
        "note": "ok" if found <= most else "FAILED",
    }


ORDERS: dict[str, unmask.Selector] = {
    "random": presets.random(1),
    "confidence": presets.confidence(1),
    "left to right": presets.left_to_right(1),
}


def small_network() -> Transformer:
    """A random network of 3 symbols and 4 positions whose law is far from uniform."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Transformer(3, 4, 32, 2, heads=2)
        torch.nn.init.normal_(network.head.weight, std=0.5)
    return network.eval()


def denoiser_on(network: Transformer, device: str) -> unmask.Denoiser:
    """A copy of a network on a device."""
    return unmask.from_logits(copy.deepcopy(network).to(device).eval(), 3, 3)


def surprise(denoiser: unmask.Denoiser, selector: unmask.Selector, log_probs: Tensor, job: Job) -> float:
    """How many standard deviations chi-square of draws is from what it should be, of all 81 sequences along one order."""
    count = 4_000 if job.small else 40_000
    masked = torch.full((count, 4), 3, device=job.device)
    same = torch.zeros(count, dtype=torch.int64)  # one order for all
    drawn = unmask.sample(
        denoiser, masked, selector, generator=torch.Generator().manual_seed(1), order_ids=same
    ).tokens
    place = (drawn.cpu() * torch.tensor([27, 9, 3, 1])).sum(1)
    expected = count * log_probs.exp()
    chi = float(((torch.bincount(place, minlength=81) - expected) ** 2 / expected.clamp(min=1e-9)).sum())
    spread = math.sqrt(float(2 * 80 + (1 / expected).sum() - 81**2 / count))
    return abs(chi - 80) / spread


# --- an archive from there, read here ---------------------------------------------------------------


def archive(job: Job) -> Iterator[Row]:
    """Writes an archive by a network on the device in float64, and reads it where only the CPU is seen."""
    model = unmask.load("text")
    subject = of_model(model)
    network = subject.denoiser.network.to(job.device)  # type: ignore[attr-defined]

    def there(tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        with torch.inference_mode():
            found: Tensor = network(tokens.to(job.device), None if rows is None else rows.to(job.device))
        return found.cpu().clone()

    subject = replace(subject, denoiser=replace(subject.denoiser, network=there))  # type: ignore[type-var]
    texts, began = TEXTS[:2] if job.small else TEXTS, time.perf_counter()
    data = unmask.compress(subject, texts, plan=8, shorter=False)
    wrote = time.perf_counter() - began
    alone = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, "--read", "-"]
    patience = max(job.end - time.monotonic(), 1.0)
    done = subprocess.run(command, input=data, capture_output=True, env=alone, timeout=patience, check=False)
    same = done.returncode == 0 and json.loads(done.stdout) == texts
    found = inspect(data).summary
    size, coded = sum(map(len, texts)), found.kinds["coded"]
    note = "ok" if same else f"FAILED: {checkpoints.one_line(done.stderr.decode() or 'other texts')}"
    if same and coded < len(texts):
        note = f"FAILED: {coded} of {len(texts)} coded, the rest stored"
    yield {
        "what": f"{len(texts)} texts",
        "bytes": size,
        "coded": found.coded_bytes,
        "archive": len(data),
        "seconds": wrote,
        "note": note,
    }


# --- sampling over bare passes ----------------------------------------------------------------------


def sampling(job: Job) -> Iterator[Row]:
    """Time of a sampler over that of as many bare passes, one row for each batch and order."""
    vocab, length, width, depth = (1000, 64, 64, 2) if job.small else (50_257, 1024, 768, 12)
    network = overhead.made(vocab, length, width, depth).to(job.device).eval()
    passes = halved(network, job.device)
    denoiser, plan = unmask.from_logits(passes, vocab, vocab), unmask.plans.uniform(length, STEPS)
    kinds = {"sighted": (presets.confidence(plan), SIGHTED), "blind": (presets.random(plan), BLIND)}
    cases = [(batch, kind) for batch in (1, 64) for kind in kinds]
    for number, (batch, kind) in enumerate(cases):
        masked = torch.full((batch, length), vocab, device=job.device)
        selector, aim = kinds[kind]
        what = {"what": f"{kind}, batch {batch}, L {length}, V {vocab}, width {width}, {depth} layers"}
        mine = replace(job, until=time.monotonic() + job.left() / (len(cases) - number))
        pairs = in_turn(mine, denoiser, passes, masked, selector)
        if not pairs:
            yield what | {"note": "skipped: no time for two runs"}
            continue
        ratios = [ours / calls for ours, calls in pairs]
        row = {
            "sample s": statistics.median(a for a, _ in pairs),
            "bare s": statistics.median(b for _, b in pairs),
        }
        row |= {
            "ratio": statistics.median(ratios),
            "min": min(ratios),
            "max": max(ratios),
            "runs": len(pairs),
        }
        yield what | row | aimed(job, aim, row["ratio"] <= aim)


def aimed(job: Job, aim: float, kept: bool) -> Row:
    """An aim and whether it is kept; small networks have none."""
    return {"note": "small: no aim"} if job.small else {"aim": aim, "note": "kept" if kept else "missed"}


def halved(network: torch.nn.Module, device: str) -> Callable[..., Tensor]:
    """The network in bfloat16 where the device is faster so."""
    half = devices.has_bfloat16(device)

    def passes(tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        with torch.autocast(devices.kind_of(device), torch.bfloat16, enabled=half):
            found: Tensor = network(tokens, rows)
        return found

    return passes


def in_turn(
    job: Job,
    denoiser: unmask.Denoiser,
    passes: Callable[..., Tensor],
    masked: Tensor,
    selector: unmask.Selector,
) -> list[tuple[float, float]]:
    """Seconds of the sampler and of the bare calls, at most seven times in turn after once that is thrown away."""

    def ours() -> None:
        unmask.sample(denoiser, masked, selector, generator=torch.Generator().manual_seed(1))

    pairs: list[tuple[float, float]] = []
    longest = 0.0
    while len(pairs) < 8 and job.left() > 1.2 * longest:
        pairs.append((job.seconds(ours), job.seconds(lambda: overhead.bare(passes, masked))))
        longest = max(longest, sum(pairs[-1]))
    return pairs[1:]


# --- throughput of training -------------------------------------------------------------------------


def throughput(job: Job) -> Iterator[Row]:
    """Operations a second of training steps over the device's peak, eager and compiled."""
    half = devices.has_bfloat16(job.device)
    stated, reached = stated_peak(job.device), matrices(job, half)
    yield {
        "what": "product of two matrices",
        "operations/s": reached,
        "share of peak": reached / (stated or reached),
        "note": f"stated: {stated:.4g}" if stated else "none is stated: this is the peak",
    }
    yield step_row(job, False, stated or reached)
    if job.small:
        yield {"what": "compiled step", "note": "skipped: small networks are not worth compiling"}
    else:
        yield apart(job, stated or reached)


def step_row(job: Job, compiled: bool, peak: float) -> Row:
    """What a training step reaches; its first one, which compiles, is apart."""
    vocab, length, width, depth, rows = (1000, 64, 64, 2, 4) if job.small else (50_257, 1024, 768, 12, 32)
    half = devices.has_bfloat16(job.device)
    machine = Machine(device=job.device, bfloat16=half, compile=compiled)
    run = replace(training_speed.made(vocab, length, width, depth, rows), machine=machine)
    flops = cost(run, Spread(bfloat16=half)).flops
    made = state.started(ALONE, run, state.initialised(run))
    batch, times = run.batch(run, 0), list[float]()
    while len(times) < 13 and (len(times) < 2 or job.left() > 2 * times[-1]):
        times.append(job.seconds(lambda: update(made, batch, 0)))
    usual = statistics.median(times[1:])
    what = f"{'compiled' if compiled else 'eager'} step, V {vocab}, L {length}, batch {rows}, width {width}, {depth} layers"
    row = {"what": what, "operations/s": flops / usual, "tokens/s": length * rows / usual, "step s": usual}
    share = flops / usual / peak
    return row | {"first s": times[0], "share of peak": share} | aimed(job, SHARE, share >= SHARE)


def apart(job: Job, peak: float) -> Row:
    """`step_row` compiled, by another process, for compiling cannot be told to stop."""
    words = ["--compiled", str(peak), "--device", job.device, "--minutes", str(max(job.left(), 1) / 60)]
    try:
        done = subprocess.run(
            [sys.executable, __file__, *words],
            capture_output=True,
            text=True,
            timeout=max(job.left(), 1),
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return {"what": "compiled step", "note": f"skipped: not compiled within {late.timeout:.0f} s"}
    if done.returncode:
        raise RuntimeError(f"compiled step: {done.stderr.strip().splitlines()[-1:]}")
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def stated_peak(device: str) -> float | None:
    """What the maker states of a device; None for one that is not in the table."""
    if devices.kind_of(device) != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if all(word in name for word in part.split())), None)


def matrices(job: Job, half: bool) -> float:
    """Operations a second of the best of twelve products of two square matrices."""
    n = 512 if job.small else 8192
    a, b = (
        torch.randn(n, n, device=job.device, dtype=torch.bfloat16 if half else torch.float32)
        for _ in range(2)
    )
    return 2.0 * n**3 / min(job.seconds(lambda: a @ b) for _ in range(12))


# --- better weights ---------------------------------------------------------------------------------


def training(job: Job) -> Iterator[Row]:
    """Goes on with the shipped models whose data are here, each for its part of the seconds."""
    usable = []
    for name in job.models:
        try:
            run = begun(name, job)
            usable.append((name, run.prepare(run)))
        except (ValueError, OSError) as error:
            said = checkpoints.one_line(error).replace(str(Path.home()), "~")
            yield {"what": name, "note": f"skipped: {said}"}
    kept = 2
    for number, (name, run) in enumerate(usable):
        seconds = job.left() / (len(usable) - number)
        if seconds < (8 if job.small else 25):
            yield {"what": name, "note": f"skipped: {max(seconds, 0):.0f} s for it are too few"}
            continue
        row, tar = improved(name, run, job, seconds)
        if tar is not None and kept < MOST_FILES and len(tar) <= MOST_BYTES:
            records.write_bytes(job.out / f"{name}.tar", tar)
            kept += 1
            row["note"] = f"kept: {name}.tar"
        yield row


def begun(name: str, job: Job) -> Run:
    """The run of a shipped model, from its weights; the settings are those of its config (small: eight rows a batch)."""
    folder = pretrained_folder() / name
    config = checkpoints.read_json(folder / "config.json")
    run = recipes.all_recipes()[config["name"]]()
    machine = Machine(device=job.device, bfloat16=None, log_every=50, save_minutes=60)
    named = {k: alike(getattr(run, k), config[k]) for k in ("network", "data")}
    rows = 8 if job.small else config["batch_size"]
    return replace(run, **named, start=str(folder), machine=machine, batch_size=rows)


def alike(made: Any, said: dict[str, Any]) -> Any:
    """A record with the values of a config that it knows; what the data say of themselves is found anew."""
    known = {f.name for f in fields(made)} - {"fingerprint"}
    return replace(made, **{k: tuples(v) for k, v in said.items() if k in known})


def improved(name: str, run: Run, job: Job, seconds: float) -> tuple[Row, bytes | None]:
    """Trains for so many seconds; what came of it, and the new model's files where it is better beyond its interval."""
    until = time.monotonic() + seconds
    batches = held_out(run, 8 if job.small else 48)
    before = values(unmask.load(name, device=job.device), run, batches)
    cost_of_values = time.monotonic() - until + seconds
    each = step_seconds(run, job)
    steps = int((until - time.monotonic() - 1.5 * cost_of_values - 2) / (1.1 * each))
    if steps < 10:
        return {
            "what": name,
            "before": before.mean().item(),
            "note": f"skipped: time for {max(steps, 0)} steps",
        }, None
    with tempfile.TemporaryDirectory() as folder:
        place = train(shortened(run, steps), Path(folder), quiet=True)
        halves = ship.halves(place)
        checkpoints.write_tensors(place / "weights.safetensors", halves)
        after = values(unmask.load(place, device=job.device), run, batches)
        gain, interval = gained(before, after)
        row = {"what": name, "steps": steps, "before": before.mean().item(), "after": after.mean().item()}
        row |= {
            "gain": gain,
            "interval": interval,
            "seconds": seconds - (until - time.monotonic()),
        }
        if gain <= interval:
            return row | {"note": "not kept: no better"}, None
        return row | {"note": "better, not kept: too many files, or too large"}, packed(name, place)


def gained(before: Tensor, after: Tensor) -> tuple[float, float]:
    """By how much values fell, and 1.96 standard errors of that: of the differences, for the batches are the same."""
    gain = before - after
    return float(gain.mean()), 1.96 * float(gain.std()) / math.sqrt(len(gain))


def held_out(run: Run, count: int) -> list[recipes.Batch]:
    """Batches that training does not see: of another part of the folder, or of another seed where data are made."""
    other = replace(run, seed=run.seed + 1_000_003)
    if isinstance(run.data, Folder):
        parts = [replace(run.data, part=part, fingerprint="") for part in ("valid", "test")]
        there = [part for part in parts if (part.place / "manifest.json").is_file()]
        if not there:
            raise ValueError(
                f"{run.data.folder} has no part valid or test; expected one: fetch the data again"
            )
        other = replace(other, data=there[0])
    return [other.batch(other, step) for step in range(count)]


@torch.no_grad()
def values(model: unmask.Model, run: Run, batches: list[recipes.Batch]) -> Tensor:
    """The objective on each batch, float64 [n], nats a position."""
    network, device = model.denoiser.network, run.machine.device
    return torch.tensor([float(run.objective(network, b.to(device))) for b in batches], dtype=torch.float64)


def step_seconds(run: Run, job: Job) -> float:
    """How long a step takes, its batch included; the median of a few after the first."""
    made = state.started(ALONE, run, state.initialised(run))
    times = [job.seconds(lambda: update(made, run.batch(run, 0), 0)) for _ in range(3 if job.small else 8)]
    return statistics.median(times[1:])


def shortened(run: Run, steps: int) -> Run:
    """The run for so many steps from weights that are good already: a third of the rate, which falls from the start."""
    o = run.optimiser
    average = min(o.ema, 1 - 1 / max(steps / 10, 2))
    rate, warmup = o.learning_rate / 3, min(o.warmup, steps // 10)
    changed = dataclasses.replace(o, steps=steps, learning_rate=rate, warmup=warmup, decay=1.0, ema=average)
    seed = int(time.time()) % 2**31  # other batches than those that the weights have seen
    return replace(run, optimiser=changed, seed=seed)


def packed(name: str, place: Path) -> bytes:
    """The model's files as a tar file of the folder ``name``."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for file in ("config.json", "weights.safetensors"):
            archive.add(place / file, f"{name}/{file}")
    return data.getvalue()


SECTIONS: dict[str, tuple[Callable[[Job], Iterator[Row]], float, float]] = {
    "Core": (core, 10, 0.1),
    "Archive": (archive, 30, 0.15),
    "Sampling": (sampling, 30, 0.25),
    "Throughput": (throughput, 30, 0.25),
    "Training": (training, 40, 1.0),
}
"""Sections: the least seconds that make sense (small: a quarter), and the most as a share of all."""


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(f"accelerator: {error}")
