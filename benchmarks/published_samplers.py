"""What do published samplers cost beyond the network's passes, and ours with the same rule on the same network?

Run for each PART of arg-max, drawn, memory, small, law: python benchmarks/published_samplers.py --peers FOLDER
--part PART --out PART.json [--batch 4] [--length 256] [--repeats 5]; then: .. --peers FOLDER --join *.json --write.
FOLDER holds checkouts named LLaDA, dllm, Fast-dLLM, mdlm and flow_matching, and an unpacked wheel named diffusers.

Time is CPU time of one thread, so that other work on the machine counts little. Their samplers call
`network(tokens)` with the head at every position: the time inside these calls, measured in the same run, is that
of the bare passes, and no pass more is made.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import peers
import record
import torch
from peers import Asked, Job, Sampler
from sampling_speed import resident
from torch import Tensor

import unmask
from unmask.denoisers import caches
from unmask.kernels import commit
from unmask.masking import schedules
from unmask.orders import presets, selectors, sources

Ours = Callable[[unmask.Denoiser, Tensor], unmask.Result]
TAU = {50_257: 3.4e-4, 28: 0.9}
"""Thresholds with which the networks of random weights take about as many calls as the plan."""


@dataclass(frozen=True)
class Pair:
    """A published sampler, ours beside it, and the number of positions that must come out equal where it is greedy."""

    name: str
    symbols: str
    job: Job
    theirs: Callable[[Path, Job], Sampler]
    ours: dict[str, Ours]
    with_mask: bool = False
    same_law: str = ""


@dataclass
class Runs:
    """Seconds of CPU and of the clock: [whole run, inside the network] of theirs, whole runs of ours by name."""

    theirs: list[tuple[float, float, float]] = field(default_factory=list)
    ours: dict[str, list[float]] = field(default_factory=dict)
    calls: int = 0
    passes: float = 0.0
    found: dict[str, Any] = field(default_factory=dict)


def main() -> None:
    """Measures one part, or puts parts together and, with --write, records them."""
    options = asked()
    torch.set_num_threads(1)
    if options.join:
        tables = joined([json.loads(path.read_text()) for path in options.join])
        for title, rows in tables.items():
            print("", title, *record.table(rows), sep="\n")
        if options.write:
            print(record.write_parts("published_samplers", tables, NOTES.format(about=about(options))))
        return
    save(options, measured(options))


def save(options: argparse.Namespace, tables: dict[str, list[dict[str, Any]]]) -> None:
    """Writes the rows of a part and where they come from."""
    options.out.write_text(json.dumps({"about": record.environment(), "tables": tables}))


def measured(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The rows of one part."""
    if options.part == LAW:
        return {LAW: [compared(p, options.peers) for p in pairs(Job(28, 64, 192, 16, True)) if p.same_law]}
    small = options.part == SMALL
    job = Job(28, 64, 1, 64, True) if small else Job(50_257, options.length, options.batch, 16, True)
    sizes = (64, 2) if small else (256, 4)
    networks = made(job, *sizes), widened(job, *sizes)
    if options.part == MEMORY:
        return {MEMORY: memory(networks, options)}
    found = [pair for pair in pairs(job) if small or pair.symbols == options.part]
    return {SMALL if small else LARGE: timed(found, networks, options)}


def joined(parts: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Tables of all parts, each with its rows in the order of the parts."""
    names = (LARGE, MEMORY, SMALL, LAW)
    return {TITLES[n]: [row for part in parts for row in part["tables"].get(n, [])] for n in names}


def about(options: argparse.Namespace) -> str:
    """Commits of the published code, and when and under which load each part was measured."""
    lines = [f"- {name}: {peers.stated(options.peers / name)}" for name in peers.FOLDERS]
    for path in options.join:
        part = json.loads(path.read_text())["about"]
        settings = " ".join(part["command"].split()[4:]).split(" --out")[0]
        lines.append(
            f"- `{settings}`: {part['date']}, commit {part['commit']}, load {part['load']} at its end"
        )
    return "\n".join([*lines, *options.remark])


LARGE, MEMORY, SMALL, LAW = "large", "memory", "small", "law"
TITLES = {
    LARGE: "V = 50,257, width 256, 4 layers, 16 steps",
    MEMORY: "Memory on the same network",
    SMALL: "V = 28, L = 64, width 64, 2 layers, 64 steps: one position a call where the rule has a plan",
    LAW: "The same law where symbols are drawn",
}


def asked() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=Path, required=True, help="folder with the checkouts")
    parser.add_argument("--part", choices=["arg-max", "drawn", MEMORY, SMALL, LAW], default="arg-max")
    parser.add_argument("--out", type=Path, default=Path("part.json"), help="where the rows of a part go")
    parser.add_argument("--batch", type=int, default=4, help="sequences at once on the large network")
    parser.add_argument("--length", type=int, default=256, help="positions on the large network")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60.0, help="start no further sampler after this")
    parser.add_argument("--join", type=Path, nargs="*", help="files of --out to put together")
    parser.add_argument("--remark", nargs="*", default=[], help="lines for the record")
    parser.add_argument("--write", action="store_true")
    return parser.parse_args()


# --- the samplers -----------------------------------------------------------------------------------


def pairs(job: Job) -> list[Pair]:
    """Every published sampler with ours beside it."""
    one, drawn = replace(job, batch=1), replace(job, greedy=False)
    plan = unmask.plans.uniform(job.length, job.steps)
    confident = {"confidence, arg-max": ours(presets.confidence(plan), sources.greedy)}
    certain = {"threshold, arg-max": ours(presets.threshold(TAU[job.vocab]), sources.greedy)}
    binomial = {"ancestral": ours(presets.ancestral(job.steps))}
    lucky = {"low_confidence (same rule)": kernel(commit.low_confidence(1.0, plan))}
    first = {"confidence (chooses first)": ours(presets.confidence(plan))}
    cooled = commit.cosine_counts(job.steps)
    return [
        Pair("LLaDA generate", "arg-max", job, peers.llada, confident),
        Pair("dllm MDLMSampler", "arg-max", job, peers.dllm, confident),
        Pair("Fast-dLLM generate", "arg-max", one, peers.fast_dllm, confident),
        Pair("Fast-dLLM threshold", "arg-max", one, parallel, certain),
        Pair("Fast-dLLM dual cache", "arg-max", replace(one, blocks=4), dual, {"caches.blocks, arg-max": cached(job)}),
        Pair("LLaDA generate", "drawn", drawn, peers.llada, lucky | first, same_law="low_confidence"),
        Pair("mdlm ddpm_cache", "drawn", drawn, peers.mdlm, binomial, True, "ancestral"),
        Pair(
            "diffusers AmusedScheduler",
            "drawn",
            drawn,
            maskgit,
            {"maskgit (same rule)": kernel(commit.maskgit(cooling(job.steps), cooled))},
            same_law="maskgit",
        ),
        Pair(
            "flow_matching Euler",
            "drawn",
            drawn,
            peers.flow,
            {"ancestral (same times)": ours(selectors.ancestral(schedules.linear(), euler_times(job.steps), 0))},
            True,
            "ancestral",
        ),
        Pair("dllm MDLMSampler", "drawn", drawn, peers.dllm, lucky, same_law="low_confidence"),
        Pair("Fast-dLLM generate", "drawn", replace(drawn, batch=1), peers.fast_dllm, lucky),
    ]  # fmt: skip


def parallel(folder: Path, job: Job) -> Sampler:
    """Fast-dLLM's threshold rule."""
    return peers.fast_dllm(folder, job, threshold=TAU[job.vocab])


def dual(folder: Path, job: Job) -> Sampler:
    """Fast-dLLM's dual cache: four blocks."""
    return peers.fast_dllm(folder, job, "generate_with_dual_cache")


def maskgit(folder: Path, job: Job) -> Sampler:
    """MaskGIT with the choice temperature of aMUSEd, 2 to 0."""
    return peers.amused(folder, job, (2, 0))


def cooling(steps: int) -> Callable[[int], float]:
    """The same temperature for ours."""
    return lambda step: 2 * (1 - step / (steps - 1)) if step < steps else 0.0


def euler_times(steps: int) -> Tensor:
    """The masked shares after each Euler step: a jump has probability 1 - exp(-1 / (steps - k)), not 1 / (steps - k)."""
    rates = torch.tensor([1 / (steps - k) for k in range(steps)], dtype=torch.float64)
    shares = torch.cat([torch.zeros(1, dtype=torch.float64), rates.cumsum(0)]).neg().exp()
    shares[-1] = 0.0
    return shares


def ours(selector: unmask.Selector, source: Any = sources.draw) -> Ours:
    """`unmask.sample`."""
    return lambda denoiser, tokens: unmask.sample(
        denoiser, tokens, selector, generator=seeded(), source=source
    )


def kernel(rule: commit.Rule) -> Ours:
    """`commit.sample`."""
    return lambda denoiser, tokens: commit.sample(denoiser, tokens, rule, generator=seeded())


def cached(job: Job) -> Ours:
    """Greedy confidence in four blocks with a cache of each."""
    size = job.length // 4
    plan = unmask.plans.uniform(size, job.steps // 4)
    order = selectors.in_blocks(presets.confidence(plan), size)
    return lambda denoiser, tokens: ours(order, sources.greedy)(caches.blocks(denoiser, size), tokens)


def seeded() -> torch.Generator:
    """A generator of the next seed of torch's global one, so that repeats differ."""
    return torch.Generator().manual_seed(int(torch.randint(2**31, (1,))))


def made(job: Job, width: int, depth: int, scale: float = 1.0) -> unmask.networks.Transformer:
    """Random weights; learned positions, or all positions would tie at the all-masked start."""
    torch.manual_seed(0)
    network = unmask.networks.Transformer(job.vocab, job.length, width, depth, heads=width // 32)
    torch.nn.init.normal_(network.head.weight, std=0.05 * scale)
    return network


def widened(job: Job, width: int, depth: int, scale: float = 1.0) -> unmask.networks.Transformer:
    """The same network with a logit for the mask, which some samplers want."""
    network = made(job, width, depth, scale)
    head, wide = network.head, torch.nn.Linear(width, job.vocab + 1)
    with torch.no_grad():
        for old, new in zip(head.parameters(), wide.parameters()):
            new.zero_()[: job.vocab] = old
    network.head = wide
    return network


# --- time -------------------------------------------------------------------------------------------


class Clocked(Asked):
    """Sums the CPU seconds inside the network."""

    seconds = 0.0

    def __call__(self, tokens: Tensor) -> Tensor:
        return self.clocked(lambda: super(Clocked, self).__call__(tokens))  # type: ignore[no-any-return]

    def full(self, tokens: Tensor) -> tuple[Tensor, Any]:
        return self.clocked(lambda: super(Clocked, self).full(tokens))  # type: ignore[no-any-return]

    def partial(self, tokens: Tensor, rows: Tensor, cache: Any) -> Tensor:
        return self.clocked(lambda: super(Clocked, self).partial(tokens, rows, cache))  # type: ignore[no-any-return]

    def clocked(self, work: Callable[[], Any]) -> Any:
        """The work, and its time added."""
        began = time.process_time()
        found = work()
        self.seconds += time.process_time() - began
        return found


def timed(found: list[Pair], networks: tuple[Any, Any], options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each of ours, from rounds over all pairs, each with a new seed; what is there is kept in a file."""
    runs, began, rows = [Runs() for _ in found], time.perf_counter(), []
    for i in range(options.repeats):
        for pair, kept in zip(found, runs):
            if time.perf_counter() - began < 60 * options.minutes:
                run_pair(pair, kept, networks, options.peers, i)
            rows = [row for one, those in zip(found, runs) for row in summaries(one, those)]
            save(options, {SMALL if options.part == SMALL else LARGE: rows})
    return rows


def run_pair(pair: Pair, kept: Runs, networks: tuple[Any, Any], folder: Path, i: int) -> None:
    """Theirs, then each of ours."""
    run_theirs(pair, kept, networks, folder, i)
    for name in pair.ours:
        run_ours(pair, name, kept, networks[0], i)
    print(i, pair.name, pair.symbols, kept.calls, kept.theirs[-1], kept.ours, flush=True)


def run_theirs(pair: Pair, kept: Runs, networks: tuple[Any, Any], folder: Path, i: int) -> None:
    """One run of a published sampler."""
    network, sampler = Clocked(networks[pair.with_mask]), pair.theirs(folder, pair.job)
    torch.manual_seed(i)
    clock, cpu = time.perf_counter(), time.process_time()
    tokens = sampler(network)
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    kept.theirs.append((cpu, network.seconds, clock))
    kept.calls, kept.passes, kept.found["theirs"] = network.calls, network.passes, tokens


def run_ours(pair: Pair, name: str, kept: Runs, network: Any, i: int) -> None:
    """One run of ours, compared token by token where symbols are the most probable."""
    torch.manual_seed(i)
    cpu = time.process_time()
    result = run_once(pair.ours[name], network, pair.job)
    kept.ours.setdefault(name, []).append(time.process_time() - cpu)
    kept.found[name + " calls"] = sum(bool((info.rows >= 0).any()) for info in result.trace)
    kept.found[name + " equal"] = int((result.tokens == kept.found["theirs"]).sum())


def summaries(pair: Pair, kept: Runs) -> list[dict[str, Any]]:
    """Rows of the table: medians, with the smallest and the largest."""
    rows = []
    for name, seconds in kept.ours.items():
        bare = [inside for _, inside, _ in kept.theirs]
        cells = pair.job.batch * pair.job.length
        rows.append({
            "published": pair.name,
            "symbols": pair.symbols,
            "ours": name,
            "batch x L": f"{pair.job.batch} x {pair.job.length}",
            "calls": f"{kept.calls} / {kept.found[name + ' calls']}",
            "bare s": statistics.median(bare),
            "theirs over bare": spread([t / b for (t, _, _), b in zip(kept.theirs, bare)]),
            "ours over bare": spread([o / b for o, b in zip(seconds, bare)]),
            "theirs over ours": spread([t / o for (t, _, _), o in zip(kept.theirs, seconds)]),
            "equal tokens": f"{kept.found[name + ' equal']} of {cells}" if pair.symbols == "arg-max" else "",
            "runs": len(seconds),
        })  # fmt: skip
    return rows


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.3g} [{min(values):.3g}, {max(values):.3g}]"


# --- memory -----------------------------------------------------------------------------------------


def memory(networks: tuple[Any, Any], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Megabytes that each sampler takes beyond networks and libraries, in a process of its own, in 8 steps."""
    job, rows = Job(50_257, options.length, options.batch, 8, True), []
    for pair in pairs(job):
        sampler, network = pair.theirs(options.peers, pair.job), Asked(networks[pair.with_mask])
        theirs = forked(lambda: sampler(network))  # noqa: B023
        for name, work in pair.ours.items():
            mine = forked(lambda: run_once(work, networks[0], pair.job))  # noqa: B023
            rows.append(peak_row(pair, name, theirs, mine))
            print(rows[-1], flush=True)
    return rows


def run_once(work: Ours, network: Any, job: Job) -> unmask.Result:
    """One run of ours from the all-masked start."""
    denoiser = unmask.from_logits(network, job.vocab, job.vocab)
    return work(denoiser, torch.full((job.batch, job.length), job.vocab))


def peak_row(pair: Pair, name: str, theirs: float, mine: float) -> dict[str, Any]:
    """A row of the table of memory."""
    logits = pair.job.batch * pair.job.length * pair.job.vocab * 4 / 1e6
    return {
        "published": pair.name,
        "symbols": pair.symbols,
        "ours": name,
        "batch x L": f"{pair.job.batch} x {pair.job.length}",
        "logits MB": round(logits, 1),
        "peak MB, theirs": round(theirs, 1),
        "peak MB, ours": round(mine, 1),
        "theirs over ours": theirs / mine,
    }


def forked(work: Callable[[], Any]) -> float:
    """What the resident memory of a child process grows by at most while it works (Linux only)."""
    inner, outer = os.pipe()
    child = os.fork()
    if child == 0:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark becomes what is resident now
        before = resident("VmRSS")
        work()
        os.write(outer, str((resident("VmHWM") - before) / 1e6).encode())
        os._exit(0)
    os.close(outer)
    found = os.read(inner, 64)
    os.waitpid(child, 0)
    os.close(inner)
    return float(found)


# --- laws -------------------------------------------------------------------------------------------


def compared(pair: Pair, folder: Path) -> dict[str, Any]:
    """Mean log-probability, nats a position, of the symbols as they were kept: theirs, ours, the difference."""
    sizes = (64, 2, 5.0)
    torch.manual_seed(1)
    sampler, network = (
        pair.theirs(folder, pair.job),
        Asked((made, widened)[pair.with_mask](pair.job, *sizes), True),
    )
    torch.manual_seed(2)
    theirs = kept_log_probs(network, sampler(network), pair.job) / pair.job.length
    name = next(iter(pair.ours))
    torch.manual_seed(3)
    mine = traced(run_once(pair.ours[name], made(pair.job, *sizes), pair.job), pair.job) / pair.job.length
    difference = (theirs.mean() - mine.mean()).item()
    error = math.sqrt((theirs.var() / len(theirs) + mine.var() / len(mine)).item())
    return {
        "published": pair.name,
        "ours": name,
        "theirs, nats": theirs.mean().item(),
        "ours, nats": mine.mean().item(),
        "difference": difference,
        "standard errors": difference / error,
    }


def kept_log_probs(network: Asked, tokens: Tensor, job: Job) -> Tensor:
    """Log-probability float64 [B], nats, of each symbol in the step in which it appeared."""
    total = torch.zeros(job.batch, dtype=torch.float64)
    after = [seen for seen, _ in network.seen[1:]] + [tokens]
    for (before, logits), now in zip(network.seen, after):
        law = logits[..., : job.vocab].double().log_softmax(-1)
        new = (before == job.vocab) & (now != job.vocab)
        found = law.gather(-1, now.clamp(max=job.vocab - 1)[..., None])[..., 0]
        total += found.masked_fill(~new, 0.0).sum(1)
    return total


def traced(result: unmask.Result, job: Job) -> Tensor:
    """The same from the trace of ours."""
    total = torch.zeros(job.batch, dtype=torch.float64)
    for info in result.trace:
        total.index_add_(0, info.items, info.log_probs.masked_fill(info.rows < 0, 0.0).sum(1).double())
    return total


NOTES = """
Published code, each run as it is from its checkout, and the runs that the tables come from:

{about}

One network of random weights (head not zero, learned positions, so that positions do not tie at the start). Time is
CPU time of one thread of the process, because the machine was shared: read the ratios, not the seconds. Bare: the
time inside the calls of `network(tokens)`, head at every position, in the very run of the published sampler; both
samplers are divided by it. Median [smallest, largest] of as many runs as the last column says, theirs and ours in
turn. Calls: theirs / ours.
Ours reads the masked rows only, and blind orders the chosen rows only: that is how it can cost less than the bare
passes of theirs. A ratio over ours joins what the two samplers compute and what they ask the network for.

Equal tokens, of all positions:
- LLaDA, dllm and Fast-dLLM at temperature 0 are greedy top-k confidence with equal step sizes: `presets.confidence`
  with the source `greedy`. Fast-dLLM's threshold is `presets.threshold`, its dual cache `caches.blocks` (4 blocks).
  Two positions whose confidences are closer than float32 tells may change places; then tokens differ from there on.
- Where symbols are drawn no two libraries agree token by token: LLaDA, dllm and Fast-dLLM take the arg-max of
  exp(logits) over float64 exponential noise for the whole vocabulary from torch's global generator (two of them, at
  one seed, draw the same), mdlm does so in float32, diffusers and flow_matching call `torch.multinomial` in float32;
  ours is an inverse CDF in float64 with a stream for each row and position. There the laws are compared: mean
  log-probability of the symbols as they were kept, 192 sequences a side (seeds shared between the rows), network of
  V = 28 with a sharper head.
- diffusers' scheduler at choice temperature 0 still draws its symbols, so it has no greedy form. mdlm ends with a
  pass and an arg-max for what is still masked at t = 1e-5, one call more than its steps, and spares the call of a
  step that changed nothing. Euler steps of flow_matching jump with probability 1 - exp(-h/(1-t)), not h/(1-t): ours
  is the ancestral sampler on the times with these shares.

Fast-dLLM takes one sequence at a time. For diffusers the scheduler runs in the loop of its pipeline, whose text
encoder and VQ-GAN are not needed. flow_matching is given probabilities with visible symbols certain, mdlm and
flow_matching a logit for the mask. Memory: what the resident set of a forked process grows by at most (VmHWM after
/proc/self/clear_refs, minus VmRSS before), 8 steps; about 20 MB of either side are pages of libraries on first use.
"""


if __name__ == "__main__":
    main()
