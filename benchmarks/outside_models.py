"""What does it save that an outside model runs its output head at the asked rows only? `sample` over bare passes.

Run: python benchmarks/outside_models.py [--repeats 5] [--write]; it needs the extra ``hf``. The weights are random, and
all sides of each ratio run in turn in one process, each model in its own.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import record
import torch
import transformers

import unmask

VOCAB, LENGTH, BATCH, CALLS, WIDTH, DEPTH = 50_257, 256, 4, 16, 256, 4
MASK = VOCAB - 1
SHARED = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": WIDTH // 32,
    "intermediate_size": 4 * WIDTH,
    "max_position_embeddings": LENGTH + 2,
    "pad_token_id": 0,
    "mask_token_id": MASK,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
    "initializer_range": 0.05,
}
MODELS: dict[str, Callable[[], Any]] = {
    "Bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SHARED)),
    "Esm": lambda: transformers.EsmForMaskedLM(
        transformers.EsmConfig(**SHARED, position_embedding_type="rotary", token_dropout=False)
    ),
    "ModernBert": lambda: transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**SHARED)),
}
ORDERS: dict[str, Callable[[], Any]] = {
    "confidence": lambda: unmask.scores.confidence,
    "random": lambda: unmask.scores.at_random(0),
}
MOST = {"confidence": 0.95, "random": 0.45}
"""The largest ratio that is wanted."""

NOTES = f"""
Processor time, on one thread, of `unmask.sample` (all masked, uniform plan of {CALLS} steps, symbols drawn) over
{CALLS} calls of `network(input_ids=tokens)` in inference mode, same batch, in turn. V {VOCAB}, length {LENGTH}, batch
{BATCH}, width {WIDTH}, {DEPTH} layers, random weights, the mask in the vocabulary, transformers {transformers.__version__}.
"before": `from_logits(.., head=False)`, the head at every position; "after": as `from_logits` makes it. Ratios: medians
over the repeats, with the smallest and largest of "after". Wanted: at most {MOST["confidence"]} (confidence) and
{MOST["random"]} (random). "same": the tokens drawn are equal, and the largest difference of their log-probabilities in
nats. "probe s": the first call with rows less the second, which is paid once for given weights.
"""


def main() -> None:
    """Prints, and with --write records, the ratios of every model and order; exit code 1 where one is above its bound."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--processes", type=int, default=1, help="models at a time")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.processes) as pool:
        parts = list(pool.map(measured, options.models, itertools.repeat(options.repeats)))
    rows = [row for part in parts for row in part]
    print("\n".join(record.table(rows)))
    if options.write:
        print(record.write("outside_models", rows, NOTES))
    raise SystemExit(int(not all(row["ratio after"] <= MOST[row["order"]] and row["same"] for row in rows)))


def measured(name: str, repeats: int) -> list[dict[str, Any]]:
    """The rows of one model: both orders, each with the head at every position and at the asked rows."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = MODELS[name]().eval()
    masked = torch.full((BATCH, LENGTH), MASK)
    probe = first_call(network)
    denoisers = [unmask.from_logits(network, MASK, VOCAB, head=head) for head in (False, None)]
    sides = {(order, after): drawing(denoisers[after], masked, order) for order in ORDERS for after in (0, 1)}
    drawn, times = {}, []
    for _ in range(repeats):
        turn = {side: timed(draw) for side, draw in sides.items()} | {
            "bare": timed(lambda: bare(network, masked))
        }
        drawn = {side: result for side, (_, result) in turn.items()}
        times.append({side: seconds for side, (seconds, _) in turn.items()})
        print(name, *(f"{x:.1f} s" for x in times[-1].values()), flush=True)
    assert denoisers[1].head is not None
    assert not denoisers[1].head.why, denoisers[1].head.why
    same = {order: agreement(drawn[order, 0], drawn[order, 1]) for order in ORDERS}
    return [{"model": name, "order": o, **ratios(times, o), **same[o], "probe s": probe} for o in ORDERS]


def drawing(denoiser: Any, masked: torch.Tensor, order: str) -> Callable[[], Any]:
    """`sample` along an order, always with the same random numbers."""
    selector = unmask.selectors.top_k(ORDERS[order](), unmask.plans.uniform(LENGTH, CALLS))
    return lambda: unmask.sample(denoiser, masked, selector, generator=torch.Generator().manual_seed(1))


def ratios(times: list[dict[Any, float]], order: str) -> dict[str, Any]:
    """Medians of the seconds and of the ratios to the bare passes of the same turn."""
    before, after = ([t[order, side] / t["bare"] for t in times] for side in (0, 1))
    return {
        f"{CALLS} passes s": statistics.median(t["bare"] for t in times),
        "before s": statistics.median(t[order, 0] for t in times),
        "after s": statistics.median(t[order, 1] for t in times),
        "ratio before": statistics.median(before),
        "ratio after": statistics.median(after),
        "min": min(after),
        "max": max(after),
    }


def agreement(before: Any, after: Any) -> dict[str, Any]:
    """Whether both drew the same tokens, and how far the log-probabilities lie apart."""
    apart = float((before.log_prob - after.log_prob).abs().max())
    return {"same": torch.equal(before.tokens, after.tokens), "nats apart": apart}


def first_call(network: torch.nn.Module) -> float:
    """Seconds that the first call with rows takes above the second."""
    denoiser = unmask.from_logits(network, MASK, VOCAB)
    tokens, rows = torch.full((BATCH, LENGTH), MASK), torch.arange(16).expand(BATCH, -1)
    unmask.from_logits(network, MASK, VOCAB, head=False)(tokens, rows)
    first, second = (timed(lambda: denoiser(tokens, rows))[0] for _ in range(2))
    return first - second


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of processor time of one run, and what it gives: a machine that others use says little by the clock."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def bare(network: torch.nn.Module, masked: torch.Tensor) -> None:
    """So many passes with the head at every position, and nothing else."""
    with torch.inference_mode():
        for _ in range(CALLS):
            network(input_ids=masked)


if __name__ == "__main__":
    main()
