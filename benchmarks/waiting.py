"""How often does a step make an accelerator wait? Counted without one, on tensors that pretend.

Run: python benchmarks/waiting.py [--write]. `Pretended` tensors say that they live on an accelerator while their numbers
are on the CPU. Everything that would bring a number to the host (item, tolist, bool, nonzero, indexing by a mask, a copy to
the CPU) is counted with the line of unmask that asked for it. Copies to the device are not: they need not wait.
"""

from __future__ import annotations

import argparse
import collections
import sys
from typing import Any

import record
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import unmask
from unmask.masking import schedules

DEVICE = torch.device("cuda", 0)
STEPS = 8
WAITS = {
    "item",
    "tolist",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "numpy",
    "nonzero",
    "masked_select",
    "unique",
}
WAITS |= {"equal", "cpu", "argwhere", "__contains__"}


class Pretended(Tensor):
    """A tensor of the CPU that `Accelerator` takes for one of its own."""


found: collections.Counter[str] = collections.Counter()


def noted(what: str) -> None:
    """Counts a wait under the innermost line of unmask that is running."""
    frame: Any = sys._getframe(1)
    while frame is not None and "/unmask/" not in frame.f_code.co_filename:
        frame = frame.f_back
    place = "?" if frame is None else f"{frame.f_code.co_filename.split('/unmask/')[-1]}:{frame.f_lineno}"
    found[f"{place} {what}"] += 1


def is_ours(value: Any) -> bool:
    """Whether a value is, or holds, a pretended tensor."""
    if isinstance(value, list | tuple):
        return any(map(is_ours, value))
    return isinstance(value, Pretended)


def host(value: Any) -> Any:
    """The value with plain tensors, and the CPU in place of the device."""
    if isinstance(value, list | tuple):
        return type(value)(map(host, value))
    if isinstance(value, torch.device | str) and str(value).startswith("cuda"):
        return torch.device("cpu")
    return value.as_subclass(Tensor) if isinstance(value, Pretended) else value


def device(value: Any) -> Any:
    """The value with pretended tensors."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # what sort and max return
        return type(value)(map(device, value))
    if isinstance(value, list | tuple):
        return type(value)(map(device, value))
    return value.as_subclass(Pretended) if isinstance(value, Tensor) else value


def by_mask(args: Any) -> bool:
    """Whether an index holds a map of booleans, whose number of entries the host must know."""
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in index)


class Accelerator(TorchFunctionMode):
    """Runs on the CPU what is asked of the device, and counts what the host waits for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, ours = getattr(func, "__name__", ""), is_ours(args) or is_ours(tuple(kwargs.values()))
        if func == Tensor.device.__get__:
            return DEVICE if ours else func(*args)
        places = [str(x) for x in [*args, *kwargs.values()] if isinstance(x, torch.device | str)]
        away = name == "cpu" or (name == "to" and "cpu" in places)
        if ours and (
            name in WAITS
            or away
            or (name in ("__getitem__", "__setitem__") and by_mask(args))
            or (name == "repeat_interleave" and is_ours(args[1:]))
        ):
            noted(name)
        result = func(*host(args), **{k: host(v) for k, v in kwargs.items()})
        there = (ours and not away) or any(p.startswith("cuda") for p in places)
        return device(result) if there else result


def network(vocab_size: int) -> Any:
    """A function of tokens and rows without a parameter: logits on the tokens' device."""

    def logits(tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        asked = tokens if rows is None else rows
        place = torch.arange(vocab_size, device=tokens.device, dtype=torch.float32)
        return torch.sin(asked[..., None].float() * 7 + place + tokens.sum(1)[:, None, None] % 5)

    return logits


def cases(length: int) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Selectors and settings by name."""
    even, scores, select = unmask.plans.uniform(length, STEPS), unmask.scores, unmask.selectors
    return {
        "random": (select.top_k(scores.at_random(0), even), {}),
        "left to right": (select.top_k(scores.left_to_right, length // STEPS), {}),
        "random, given": (select.top_k(scores.at_random(0), even), {"source": "given"}),
        "ancestral": (select.ancestral(schedules.linear(), schedules.uniform_grid(STEPS), 0), {}),
        "confidence": (select.top_k(scores.confidence, even), {}),
        "confidence, greedy": (select.top_k(scores.confidence, even), {"source": unmask.greedy}),
        "margin, noise": (select.top_k(scores.with_noise(scores.margin, 0.1, 0), even), {}),
        "moment": (select.top_k(scores.moment(2.0), even), {}),
        "threshold": (select.threshold(scores.confidence, 0.02), {}),
        "entropy budget": (select.entropy_budget(8.0), {}),
        "in blocks": (select.in_blocks(select.top_k(scores.confidence, 2), length // 4), {}),
    }


def measure(name: str, vocab_size: int, length: int, batch: int) -> dict[str, object]:
    """Waits of one run a step, and the lines that they come from."""
    selector, settings = cases(length)[name]
    denoiser = unmask.from_logits(network(vocab_size), vocab_size, vocab_size)
    plain = torch.full((batch, length), vocab_size)
    truth = unmask.sample(denoiser, plain, selector, generator=torch.Generator().manual_seed(0))
    if settings.get("source") == "given":
        settings = {"source": unmask.given(truth.tokens.as_subclass(Pretended))}
    with Accelerator():
        tokens, generator = plain.as_subclass(Pretended), torch.Generator().manual_seed(0)
        found.clear()
        result = unmask.sample(denoiser, tokens, selector, generator=generator, **settings)
    steps = len(result.trace)
    each = {k: n for k, n in found.items() if n >= steps / 2}
    same = not settings and torch.equal(host(result.tokens), truth.tokens)
    return {
        "order": name,
        "V": vocab_size,
        "L": length,
        "batch": batch,
        "steps": steps,
        "waits a step": sum(each.values()) / steps,
        "once a run": sum(found.values()) - sum(each.values()),
        "same tokens": same if not settings else "",
        "where": ", ".join(f"{k} x{n / steps:.2g}" for k, n in sorted(each.items())),
    }


NOTES = f"""
`unmask.sample` of {STEPS} steps on tensors that pretend to be on an accelerator. A wait is an operation that brings a
number to the host. Waits a step: those that happen at least at every second step; the others once a run. "Same tokens":
the draw equals that of plain CPU tensors, so that noise and order do not depend on the device.
"""


def main() -> None:
    """Prints, and with --write records, waits a step for orders and sizes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    sizes = [(11, 32, 3), (11, 64, 3), (2000, 32, 3), (11, 32, 9)]
    rows = [measure(name, *size) for name in cases(32) for size in sizes]
    print("\n".join(record.table(rows)))
    if options.write:
        print(record.write("waiting", rows, NOTES))


if __name__ == "__main__":
    main()
