"""What is a trained model? Its denoiser, its way of reading and writing data, and what it says about tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from unmask.base.types import Denoiser, Estimate, Plan, Selector
from unmask.data.vocabularies import Vocabulary
from unmask.denoisers import NetworkDenoiser, take_symbols
from unmask.engine.likelihood import log_likelihood, nelbo
from unmask.engine.sampling import check_tokens
from unmask.orders import presets
from unmask.orders.selectors import in_blocks
from unmask.variants import genmd4, upscale


@dataclass(frozen=True)
class Model:
    """A trained model: denoiser, ``encode(data) -> tokens``, ``decode(tokens) -> data``, the run's config.

    `log_likelihood` and `nelbo` measure whatever ``encode`` returns. The functions of these names in `unmask` know the
    denoiser only: where lengths are given (`end` is not None) tell them ``visible=model.visible(tokens)``, or they score
    the ends, which the network never says, and give -inf.
    """

    name: str
    denoiser: NetworkDenoiser
    encode: Callable[..., Tensor]
    decode: Callable[[Tensor], Any]
    config: dict[str, Any]
    vocabulary: Vocabulary | None = None

    @property
    def length(self) -> int:
        """Positions per sequence."""
        return int(self.config["network"]["length"])

    @property
    def sudoku(self) -> bool:
        """Whether it is a model of Sudoku grids: it solves puzzles."""
        return self.name in ("sudoku", "sudoku_hard")

    @property
    def hash(self) -> str:
        """SHA-256 of the weights, in hexadecimal: which model a measurement belongs to."""
        digest = hashlib.sha256()
        for name, value in sorted(self.denoiser.network.state_dict().items()):
            digest.update(name.encode() + _bytes(value))
        return digest.hexdigest()

    @property
    def end(self) -> int | None:
        """The symbol that marks where a sequence of given length ends and is always visible; None without."""
        return self.denoiser.mask_id - 1 if self.config["network"].get("ends") else None

    def all_masked(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``count`` sequences with every position hidden, int64 [count, length].

        Where lengths are given, they are drawn from those of the training data; without a generator they are spread evenly
        over that law, the same at every call.
        """
        tokens = torch.full((count, self.length), self.denoiser.mask_id)
        if self.end is None:
            return tokens
        shares = (torch.arange(count, dtype=torch.float64) + 0.5) / max(count, 1)
        if generator is not None:
            shares = torch.rand(count, dtype=torch.float64, generator=generator)
        lengths = torch.searchsorted(self._length_law().cumsum(0), shares).clamp(max=self.length)
        return tokens.where(torch.arange(self.length) < lengths[:, None], self.end)

    def visible(self, tokens: Tensor) -> Tensor | None:
        """What is no symbol to be scored: the ends in tokens int64 [B, L], bool [B, L]; None without."""
        return None if self.end is None else tokens == self.end

    def selector(self) -> Selector:
        """The model's own order (``config["order"]``), one position per call; stage by stage where there are stages.

        A causal model reads from left to right. ValueError for an order that needs settings of its own.
        """
        network = self.config["network"]
        name = "left-to-right" if network.get("causal") else str(self.config.get("order", "left-to-right"))
        if name not in _OWN:
            raise ValueError(f"order '{name}' of model '{self.name}' has settings; expected a selector")
        stages = upscale.stages_of(network)
        own = _OWN[name](1)
        return own if stages == 1 else in_blocks(own, self.length // stages)

    def log_likelihood(
        self,
        tokens: Tensor,
        selector: Selector | None = None,
        *,
        order_ids: Tensor | None = None,
        substeps: int = 1,
        with_length: bool = False,
    ) -> Tensor:
        """Log-probability float64 [B], nats, of tokens int64 [B, L] along an order, by default the model's own.

        Where lengths are given, it is that of the symbols given the lengths, as ends are visible; ``with_length`` adds the
        log-probability of each length (minus `length_cost`). ``order_ids`` (default 0 for every row) choose random orders.
        ValueError for masked tokens: those are not data.
        """
        found = log_likelihood(
            self.denoiser,
            tokens,
            self.selector() if selector is None else selector,
            visible=self.visible(tokens),
            substeps=substeps,
            order_ids=order_ids,
        )
        return found - self.length_cost(tokens) if with_length else found

    def nelbo(
        self,
        tokens: Tensor,
        *,
        generator: torch.Generator,
        samples: int = 16,
        item_ids: Tensor | None = None,
        with_length: bool = False,
    ) -> Estimate:
        """The bound of tokens int64 [B, L] that suits the model's training, nats per sequence: value and standard error.

        Of a causal model it is exact, of one in stages the sum over stages, of one told the time the integral over time,
        and otherwise the mean over random orders. Given lengths as in `log_likelihood`, where ``with_length`` adds their
        cost. Noise belongs to ``item_ids`` int64 [B] (default 0..B-1).
        """
        measure, _ = self.bound(samples)
        found = measure(tokens, generator, item_ids)
        return replace(found, value=found.value + self.length_cost(tokens)) if with_length else found

    def bound(self, samples: int) -> tuple[Bound, str]:
        """How `nelbo` measures with ``samples`` mask sets a sequence, and what that is called."""
        denoiser, network = self.denoiser, self.config["network"]
        each = f"{samples} mask sets per sequence"
        if network.get("causal"):  # one call gives all factors of the chain
            return lambda tokens, *_: _chain(denoiser, tokens), "exact from left to right"
        if (count := upscale.stages_of(network)) > 1:
            return lambda tokens, generator, ids: upscale.nelbo(
                denoiser, tokens, count, generator=generator, samples=samples, item_ids=ids
            ), f"sum of the bounds of {count} stages, {each} and stage"
        if network.get("timed"):
            powers = getattr(denoiser.network, "powers", torch.ones(denoiser.vocab_size))
            return lambda tokens, generator, ids: genmd4.nelbo(
                denoiser, tokens, powers, generator=generator, samples=samples, item_ids=ids
            ), f"integral over time with its end terms (MD4, GenMD4), {each}"
        return lambda tokens, generator, ids: nelbo(
            denoiser,
            tokens,
            generator=generator,
            samples=samples,
            visible=self.visible(tokens),
            item_ids=ids,
        ), f"bound over random orders, {each}"

    def length_cost(self, tokens: Tensor) -> Tensor:
        """-log probability of each sequence's length, nats, float64 [B]: 0 where all are equally long.

        The law of lengths is that of the training data with one more of each. A part of every sequence's bits.
        """
        if self.end is None:
            return torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
        return -self._length_law().log().to(tokens.device)[(tokens != self.end).sum(1)]

    def _length_law(self) -> Tensor:
        """Probability of each length 0..L, float64 [L + 1]."""
        counts = torch.tensor(self.config["lengths"], dtype=torch.float64) + 1
        return counts / counts.sum()


Bound: TypeAlias = Callable[[Tensor, torch.Generator, Tensor | None], Estimate]
"""(tokens int64 [B, L], generator, item_ids) -> nats per sequence."""


_OWN: dict[str, Callable[[Plan], Selector]] = {
    "random": presets.random,
    "left-to-right": presets.left_to_right,
    "bisection": presets.bisection,
    "confidence": presets.confidence,
    "margin": presets.margin,
    "entropy": presets.entropy,
}
"""Orders that a recipe may name and that need no settings."""


def _chain(denoiser: Denoiser, tokens: Tensor) -> Estimate:
    """-log p of a causal model, exact."""
    check_tokens(tokens, denoiser, masks=False)
    values = -take_symbols(denoiser(tokens), tokens).double().sum(1)
    return Estimate(values, torch.zeros_like(values))


def _bytes(value: Tensor) -> bytes:
    """A tensor's memory, row-major."""
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
