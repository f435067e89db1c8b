"""The parts of `antibodies.py`: what AntiBERTy and Sapiens make of real heavy chains. Each result is kept in a file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

import unmask
from unmask import plans, profiles
from unmask.base.records import write_text
from unmask.data.sources import antibodies
from unmask.data.sources.models import fetch_model
from unmask.orders import presets
from unmask.orders.sources import given, greedy

RESIDUES = antibodies.RESIDUES
END, MASK = len(RESIDUES), len(RESIDUES) + 1
SEED = 20_261_128
BATCH = 20
SHARES = (0.15, 0.5, 0.9, 1.0)
CALLS = {"N": 1.0, "N/2": 0.5, "N/4": 0.25}
STEPS = 16
LONGEST = 141
KNOWN = {"antiberty": (0.79, 0.85, 1.59, 3.40), "sapiens_vh": (0.62, 0.76, 1.97, 2.60)}
"""Nats per residue at `SHARES` that were measured when these packages were found, on a sample that was not kept."""

ORDERS: dict[str, Callable[[Any], Any]] = {
    "random": presets.random,
    "left to right": presets.left_to_right,
    "confidence": presets.confidence,
    "margin": presets.margin,
    "entropy": presets.entropy,
    "hybrid": presets.hybrid,
    "moment": presets.moment,
}
FAMILIES = {"uniform": plans.uniform, "cosine": plans.cosine}


@dataclass(frozen=True)
class Sizes:
    """How many chains each part takes, for one model."""

    shares: int
    regions: int
    whole: int
    fit: int
    rounds: int
    realised: int
    samples: int = 16


FULL = {
    "sapiens_vh": Sizes(shares=300, regions=200, whole=30, fit=400, rounds=8, realised=60),
    "antiberty": Sizes(shares=100, regions=16, whole=0, fit=300, rounds=1, realised=8),
}
SMALL = {
    "sapiens_vh": Sizes(shares=20, regions=6, whole=3, fit=160, rounds=1, realised=4),
    "antiberty": Sizes(shares=4, regions=2, whole=0, fit=150, rounds=1, realised=2),
}


# --- the models -------------------------------------------------------------------------------------


def denoiser_of(name: str) -> unmask.Denoiser:
    """A published model over the 20 residues and an end: symbols 0..19, `END`, `MASK`.

    Its own special symbols are put around each chain and padding behind it; none of them can be drawn.
    """
    folder = fetch_model(name)
    network = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    symbols = (folder / "vocab.txt").read_text().split()
    config = network.config
    ours = [symbols.index(r) for r in RESIDUES]
    table = torch.tensor([*ours, config.pad_token_id, config.mask_token_id])

    def logits(tokens: Tensor) -> Tensor:
        ends = (tokens != END).sum(1)
        ids = torch.nn.functional.pad(table[tokens], (1, 1), value=config.pad_token_id)
        ids[:, 0] = config.bos_token_id
        ids.scatter_(1, ends[:, None] + 1, config.eos_token_id)
        found = network(input_ids=ids, attention_mask=(ids != config.pad_token_id).long()).logits
        return torch.nn.functional.pad(found[:, 1:-1, ours], (0, 1), value=-torch.inf)

    return unmask.from_logits(logits, MASK, END + 1, with_rows=False)


def encoded(chains: list[antibodies.Chain], longest: int = 0) -> Tensor:
    """Chains as int64 [n, longest], `END` behind the shorter ones."""
    longest = max(longest, *(len(c.sequence) for c in chains))
    rows = [[RESIDUES.index(r) for r in c.sequence.ljust(longest, "A")] for c in chains]
    tokens = torch.tensor(rows)
    lengths = torch.tensor([len(c.sequence) for c in chains])
    return tokens.masked_fill(torch.arange(longest) >= lengths[:, None], END)


def regions_of(chains: list[antibodies.Chain], tokens: Tensor) -> Tensor:
    """The three CDRs as bool [n, longest]."""
    inside = torch.zeros_like(tokens, dtype=torch.bool)
    for row, c in enumerate(chains):
        for first, end in c.regions.values():
            inside[row, first:end] = True
    return inside


@dataclass(frozen=True)
class Chains:
    """The chains of each part, none of one clone in two: those that plans are realised on are in no half of the profile."""

    first: list[antibodies.Chain]
    second: list[antibodies.Chain]
    third: list[antibodies.Chain]
    diverse: list[antibodies.Chain]

    @classmethod
    def split(cls) -> Chains:
        """One chain of each clone, shuffled, in three; and of all those at most 70 % identical to each other."""
        found = antibodies.chains()
        places = np.random.default_rng(SEED).permutation(len(found))
        one = list({found[i].clone: found[i] for i in places}.values())
        return cls(one[:400], one[400:800], one[800:], antibodies.distinct(one, 0.7))


# --- the parts --------------------------------------------------------------------------------------


def by_share(denoiser: Any, chains: list[antibodies.Chain], share: float) -> dict[str, Any]:
    """Nats of the hidden residues of each chain when a share of them, at random, is hidden."""
    nats, counts = [], []
    for place, tokens in batches(chains):
        lengths = (tokens != END).sum(1)
        keys = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(SEED + place))
        keys = keys.masked_fill(tokens == END, torch.inf)
        hidden = keys.argsort(1).argsort(1) < (share * lengths).round()[:, None]
        laws = denoiser(tokens.masked_fill(hidden, MASK)).double()
        loss = -laws.gather(2, tokens[..., None])[..., 0]
        nats += torch.where(hidden, loss, 0.0).sum(1).tolist()
        counts += hidden.sum(1).tolist()
    return {"nats": nats, "residues": counts}


def by_order(
    denoiser: Any, chains: list[antibodies.Chain], order: str, share: float, region: bool, infill: bool
) -> dict[str, Any]:
    """Along an order in ceil(share N) calls, for each chain: nats, and how many residues were the first guess.

    With the true residues before each call (``infill`` False), or with the first guesses themselves.
    """
    selector = ORDERS[order](lambda n: plans.uniform(n, int(np.ceil(share * n))))
    found: dict[str, list[Any]] = {"nats": [], "hits": [], "residues": []}
    for place, tokens in batches(chains):
        hidden = regions_of(chains[place : place + BATCH], tokens) if region else tokens != END
        hits = torch.zeros(len(tokens))
        truth = given(tokens)

        def source(request: Any, truth: Any = truth, hits: Tensor = hits) -> Tensor:
            right = truth(request)
            good = (request.log_probs.argmax(-1) == right) & (request.rows >= 0)
            hits.index_add_(0, request.items, good.float().sum(1))
            return greedy(request) if infill else right

        ids = torch.arange(place, place + len(tokens))
        result = unmask.sample(
            denoiser,
            tokens.masked_fill(hidden, MASK),
            selector,
            generator=torch.Generator().manual_seed(0),
            source=source,
            order_ids=ids,
        )
        found["nats"] += (-result.log_prob).tolist()
        found["hits"] += hits.tolist()
        found["residues"] += hidden.sum(1).tolist()
    return found


def profiled(denoiser: Any, chains: list[antibodies.Chain], rounds: int) -> dict[str, Any]:
    """The losses of a half of the chains, raw, over shares of a chain's residues."""
    tokens = encoded(chains, LONGEST)
    random = torch.Generator().manual_seed(SEED)
    found = profiles.measure(denoiser, tokens, generator=random, rounds=rounds, batch_size=BATCH, end=END)
    return {"profile": found.to_json()}


def along(
    denoiser: Any, chains: list[antibodies.Chain], plan: Callable[[int], tuple[int, ...]]
) -> list[float]:
    """Nats of each chain in a random order of its own, with a plan for its length."""
    found: list[float] = []
    for place, tokens in batches(chains):
        ids = torch.arange(place, place + len(tokens))
        found += (
            -unmask.log_likelihood(
                denoiser, tokens, presets.random(plan), visible=tokens == END, order_ids=ids
            )
        ).tolist()
    return found


def bound(denoiser: Any, chains: list[antibodies.Chain], samples: int) -> list[float]:
    """The bound of each chain, nats."""
    found: list[float] = []
    for place, tokens in batches(chains):
        ids = torch.arange(place, place + len(tokens))
        random = torch.Generator().manual_seed(SEED)
        told = unmask.nelbo(
            denoiser, tokens, generator=random, samples=samples, visible=tokens == END, item_ids=ids
        )
        found += told.value.tolist()
    return found


def pseudo(denoiser: Any, chains: list[antibodies.Chain]) -> list[float]:
    """The negative pseudo-log-likelihood of each chain, nats: each residue alone hidden. No law has this as its own."""
    found = []
    for _, tokens in batches(chains):
        total = torch.zeros(len(tokens), dtype=torch.float64)
        for column in range(tokens.shape[1]):
            rows = (tokens[:, column] != END).nonzero()[:, 0]
            if len(rows):
                hidden = tokens[rows].clone()
                hidden[:, column] = MASK
                law = denoiser(hidden, torch.full((len(rows), 1), column))[:, 0].double()
                total[rows] -= law.gather(1, tokens[rows, column, None])[:, 0]
        found += total.tolist()
    return found


def batches(chains: list[antibodies.Chain]) -> Iterator[tuple[int, Tensor]]:
    """(place of the first, tokens) of batches, in the order of the chains."""
    for place in range(0, len(chains), BATCH):
        yield place, encoded(chains[place : place + BATCH])


@dataclass(frozen=True)
class Part:
    """A piece of the measurement: its name, and what does it."""

    name: str
    work: Callable[[], Any]


def parts_of(model: str, sizes: Sizes, chains: Chains, small: bool) -> list[Part]:
    """All parts of one model, those that others need first, then by what they cost."""
    denoiser = lazily(lambda: denoiser_of(model))
    some = chains.third[: sizes.realised]
    found = [
        Part(f"share {share}", lambda share=share: by_share(denoiser(), chains.third[: sizes.shares], share))
        for share in SHARES
    ]
    found += [
        Part(
            f"share {share} diverse",
            lambda share=share: by_share(denoiser(), chains.diverse[: sizes.shares], share),
        )
        for share in SHARES
    ]
    for name, half in (("fit", chains.first), ("judge", chains.second)):
        found.append(Part(name, lambda half=half: profiled(denoiser(), half[: sizes.fit], sizes.rounds)))
    found += [
        Part("realised one by one", lambda: along(denoiser(), some, lambda n: plans.one_by_one(n))),
        Part("bound", lambda: bound(denoiser(), some, sizes.samples)),
        Part("pseudo", lambda: pseudo(denoiser(), some)),
        Part("left to right", lambda: by_order(denoiser(), some[:30], "left to right", 1.0, False, False)),
    ]
    for region, these in ((True, chains.third[: sizes.regions]), (False, chains.diverse[: sizes.whole])):
        for infill in (False, True):  # the dearest last
            for label, share in reversed(CALLS.items()):
                if not these or (model == "antiberty" and share != 0.25):
                    continue
                for order in ORDERS:
                    name = f"{'cdrs' if region else 'whole'} {label} {order}{' infill' if infill else ''}"
                    found.append(
                        Part(
                            name,
                            lambda a=(these, order, share, region, infill): by_order(denoiser(), *a),
                        )
                    )
    return [Part(f"{model}{' small' if small else ''} {p.name}", p.work) for p in found]


def lazily(make: Callable[[], Any]) -> Callable[[], Any]:
    """What ``make`` gives, made at the first call."""
    kept: list[Any] = []

    def get() -> Any:
        if not kept:
            kept.append(make())
        return kept[0]

    return get


def run(part: Part, folder: Path) -> None:
    """Does a part unless its file is there."""
    path = folder / f"{part.name.replace(' ', '_').replace('/', '')}.json"
    if not path.exists():
        began, cpu = time.time(), time.process_time()
        result = part.work()
        took = {"seconds": time.process_time() - cpu, "wall": time.time() - began}
        write_text(path, json.dumps({"name": part.name, "result": result, **took}))
        print(f"{part.name}: {took['seconds']:.0f} s of processor, {took['wall']:.0f} s", flush=True)


def read(folder: Path) -> dict[str, Any]:
    """What is done, by the names of the parts."""
    return {r["name"]: r for r in (json.loads(p.read_text()) for p in sorted(folder.glob("*.json")))}
