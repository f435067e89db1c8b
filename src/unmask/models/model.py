"""What is a trained model? Its denoiser, its way of reading and writing data, and what it says about tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from unmask.base import checkpoints, noise
from unmask.base.numbers import whole
from unmask.base.profile import Profile
from unmask.base.types import Denoiser, Estimate, Result, Selector
from unmask.data.vocabularies import Vocabulary
from unmask.denoisers import NetworkDenoiser, check_tokens, take_symbols
from unmask.engine.likelihood import log_likelihood, nelbo
from unmask.models import verbs
from unmask.models.frames import Frame
from unmask.orders.selectors import in_blocks
from unmask.planning import plans, profiles
from unmask.variants import genmd4, upscale

BOARDS = ("sudoku", "sudoku_hard", "sudoku_equivariant", "sudoku4", "sudoku6")
"""Names of models of Sudoku grids, those of their recipes."""


@dataclass(frozen=True)
class Model:
    """A trained model: denoiser, ``encode(data) -> tokens``, ``decode(tokens) -> data``, the run's config.

    `log_likelihood` and `nelbo` measure whatever ``encode`` returns. The functions of these names in `unmask` know the
    denoiser only: where lengths are given (`end` is not None) tell them ``visible=model.visible(tokens)``, or they score
    the ends, which the network never says, and give -inf. ``frame`` is that of models with special tokens, which are
    visible as well; ``write(folder, network)`` puts such a network into a folder in a layout of its own.
    """

    name: str
    denoiser: NetworkDenoiser
    encode: Callable[..., Tensor]
    decode: Callable[[Tensor], Any]
    config: dict[str, Any]
    vocabulary: Vocabulary | None = None
    frame: Frame | None = None
    write: Callable[[Path, nn.Module], None] | None = None

    def __repr__(self) -> str:
        network = getattr(self.denoiser.network, "module", self.denoiser.network)
        named = "" if self.frame is None else f": {' '.join(self.frame.names[:40])}"
        more = " .." if self.frame is not None and len(self.frame.names) > 40 else ""
        drawn = self.denoiser.vocab_size if self.frame is None else len(self.frame.drawn)
        return (
            f"Model('{self.name}', {type(network).__name__}, up to {self.length} symbols a row, "
            f"{drawn} that may be drawn{named}{more})"
        )

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that may be drawn, as text; numbers where they stand for none."""
        if self.frame is not None:
            return self.frame.names
        ids = range(self.denoiser.mask_id if self.end is None else self.end)
        decode = getattr(self.vocabulary, "decode", None)
        return tuple(str(i) if decode is None or i >= self.vocabulary.size else decode([i]) for i in ids)  # type: ignore[union-attr]

    @property
    def length(self) -> int:
        """Positions per sequence; with a frame the most that a sequence may have."""
        return int(self.config["network"]["length"])

    @property
    def sudoku(self) -> bool:
        """Whether it is a model of Sudoku grids: it solves puzzles."""
        return self.frame is None and self.name in BOARDS

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

    @property
    def places(self) -> Tensor | None:
        """Which symbol of a sequence each position of its row holds, int64 [L]; None where that is the same number.

        It is the same but in a causal network that reads sequences in an order of its own (recipe `text_pi`).
        """
        network, usual = self.config["network"], [*range(self.length)]
        (places, *others) = network.get("axes") or [usual]
        own = network.get("causal") and not others and [*places] != usual
        return torch.tensor(places) if own and sorted(places) == usual else None

    @property
    def varied(self) -> bool:
        """Whether sequences have lengths of their own, which are given and not drawn."""
        return self.end is not None or self.frame is not None

    def all_masked(
        self, count: int, generator: torch.Generator | None = None, *, length: int | None = None
    ) -> Tensor:
        """``count`` sequences with every position hidden, int64 [count, length], inside the frame if there is one.

        Where lengths are given, they are drawn from those of the training data; without a generator they are spread evenly
        over that law, the same at every call. ``length`` is for models with a frame, which know no such law.
        """
        if (self.frame is None) != (length is None):
            wanted = "none" if self.frame is None else "that of each sequence"
            raise ValueError(f"length {length} for model '{self.name}'; expected {wanted}")
        if self.frame is not None:
            hidden = [self.denoiser.mask_id] * whole(length, "length", 1, self.length)
            return self.frame.rows([hidden] * count)
        tokens = torch.full((count, self.length), self.denoiser.mask_id)
        if self.end is None:
            return tokens
        shares = (torch.arange(count, dtype=torch.float64) + 0.5) / max(count, 1)
        if generator is not None:
            shares = torch.rand(count, dtype=torch.float64, generator=generator)
        lengths = torch.searchsorted(self._length_law().cumsum(0), shares).clamp(max=self.length)
        return tokens.where(torch.arange(self.length) < lengths[:, None], self.end)

    def visible(self, tokens: Tensor) -> Tensor | None:
        """What is no symbol to be scored in tokens int64 [B, L], bool [B, L]: ends, special tokens, pads; None without."""
        if self.frame is not None:
            return self.frame.visible(tokens, self.denoiser.mask_id)
        return None if self.end is None else tokens == self.end

    def selector(self) -> Selector:
        """The model's own order (``config["order"]``), one position per call; stage by stage where there are stages.

        A causal model reads from left to right. ValueError for an order that needs settings of its own.
        """
        network = self.config["network"]
        name = "left-to-right" if network.get("causal") else str(self.config.get("order", "left-to-right"))
        if name not in verbs.ORDERS:
            raise ValueError(f"order '{name}' of model '{self.name}' has settings; expected a selector")
        stages = upscale.stages_of(network)
        own = verbs.ORDERS[name](1, 0)
        return own if stages == 1 else in_blocks(own, self.length // stages)

    def log_likelihood(
        self,
        tokens: Tensor,
        selector: Selector | None = None,
        *,
        visible: Tensor | None = None,
        order_ids: Tensor | None = None,
        substeps: int = 1,
        with_length: bool = False,
        differentiable: bool = False,
        recompute: bool = False,
    ) -> Tensor:
        """Log-probability float64 [B], nats, of tokens int64 [B, L] along an order, by default the model's own.

        ``visible`` bool [B, L] marks a prompt, which is not scored, nor are ends, special tokens and pads.

        Where lengths are given, it is that of the symbols given the lengths, as ends are visible; ``with_length`` adds the
        log-probability of each length (minus `length_cost`). ``order_ids`` (default 0 for every row) choose random orders.
        ``differentiable`` and ``recompute`` are as in `unmask.log_likelihood`: without, there are no gradients.
        ValueError for masked tokens: those are not data.
        """
        found = log_likelihood(
            self.denoiser,
            tokens,
            self.selector() if selector is None else selector,
            visible=verbs.both(self.visible(tokens), visible),
            substeps=substeps,
            order_ids=order_ids,
            differentiable=differentiable,
            recompute=recompute,
        )
        return found - self.length_cost(tokens) if with_length else found

    def sample(self, count: int = 1, *, length: int | None = None, **choices: Any) -> Result:
        """Draws ``count`` sequences, of ``length`` symbols where the model has a frame; ``choices`` as in `infill`."""
        generator = noise.seeded(choices.get("seed", 0))
        return verbs.drawn(self, self.all_masked(count, generator, length=length), **choices)

    def infill(
        self, tokens: Any, hidden: Tensor | Sequence[tuple[int, int]] | None = None, **choices: Any
    ) -> Result:
        """Draws what is hidden in tokens int64 [B, L] (or what `encode` takes), given all the rest.

        ``hidden`` is bool [B, L], or ranges (first, end) of symbols in each sequence, counted from 0 without special
        tokens; None: the masks that stand there. ``choices``: ``order`` (a name among `verbs.ORDERS` or a selector,
        default the model's own), ``calls`` (network calls, in equal steps) or ``plan`` (a tuple is fitted to the number of
        hidden symbols at equal shares; default one a call), ``temperature``, ``greedy``, ``seed``.
        """
        return verbs.drawn(self, verbs.hiding(self, verbs.tokens_of(self, tokens), hidden), **choices)

    def pseudo_log_likelihood(
        self, tokens: Any, *, words: bool | Tensor = False, batch_size: int = 64
    ) -> Tensor:
        """Sum over symbols of log p(symbol | all others), nats, float64 [B]. **Not a likelihood**: no law has these values.

        One position is masked at a time, a row of the network each (arXiv 1910.14659). With ``words`` also those that
        follow in its word (arXiv 2305.10588): True where the vocabulary tells words, or int64 [B, L] with a number a word.
        """
        return verbs.pseudo_log_likelihood(self, verbs.tokens_of(self, tokens), words, batch_size)

    def profile(self, held_out: Any, **passes: Any) -> Profile:
        """The information profile by data that the model has not seen: tokens int64 [n, L] or what `encode` takes.

        Fitted to one half of the sequences, it carries the losses of the other; ``passes`` as in `verbs.halves`.
        """
        return verbs.halves(self, verbs.tokens_of(self, held_out), **passes)[0]

    def plan(
        self, held_out: Any, *, calls: int | None = None, max_kl: float | None = None, visible: int = 0
    ) -> tuple[int, ...]:
        """The best plan in so many calls, or at a cost of at most ``max_kl`` nats (order disclosed), by a profile or data.

        It is for as many symbols as the profile has, less ``visible`` given ones; `infill` and `sample` fit it to others.
        """
        known = held_out if isinstance(held_out, Profile) else self.profile(held_out)
        known = profiles.conditioned(known, visible) if visible else known
        if (calls is None) == (max_kl is None):
            raise ValueError("expected calls or max_kl, one of the two")
        return plans.optimal(known, steps=calls) if max_kl is None else plans.optimal(known, max_kl=max_kl)

    def save(self, folder: str | Path) -> None:
        """Writes the model as `load` reads it; one of transformers in the layout that transformers reads."""
        place = Path(folder)
        if place.exists() and not (place / "config.json").is_file():
            raise ValueError(
                f"{place} exists and is no model; expected a new folder, or one of a model to replace"
            )
        if self.write is not None:
            self.write(place, self.denoiser.network)
            return
        weights = self.denoiser.network.state_dict()
        checkpoints.write_folder(place, {"weights": weights}, {"config": self.config})

    def nelbo(
        self,
        tokens: Tensor,
        *,
        generator: torch.Generator,
        samples: int = 16,
        visible: Tensor | None = None,
        item_ids: Tensor | None = None,
        with_length: bool = False,
        differentiable: bool = False,
        recompute: bool = False,
    ) -> Estimate:
        """The bound of tokens int64 [B, L] that suits the model's training, nats per sequence: value and standard error.

        Of a causal model it is exact, of one in stages the sum over stages, of one told the time the integral over time,
        and otherwise the mean over random orders. Given lengths as in `log_likelihood`, where ``with_length`` adds their
        cost; ``visible`` bool [B, L] marks a prompt. Noise belongs to ``item_ids`` int64 [B] (default 0..B-1).
        ``differentiable`` and ``recompute`` are as in `unmask.nelbo`, for the mean over random orders only.
        """
        network = self.config["network"]
        if network.get("causal") or network.get("timed") or upscale.stages_of(network) > 1:
            if visible is not None:
                raise ValueError(f"model '{self.name}' has no bound given a prompt; expected no visible")
            if differentiable or recompute:
                raise ValueError(
                    f"model '{self.name}' has no bound over random orders; expected differentiable=False"
                )
        measure, _ = self.bound(samples, visible, differentiable=differentiable, recompute=recompute)
        found = measure(tokens, generator, item_ids)
        return replace(found, value=found.value + self.length_cost(tokens)) if with_length else found

    def bound(self, samples: int, visible: Tensor | None = None, **gradients: bool) -> tuple[Bound, str]:
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
            visible=verbs.both(self.visible(tokens), visible),
            item_ids=ids,
            **gradients,
        ), f"bound over random orders, {each}{'' if self.frame is None else ', given the lengths'}"

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


def _chain(denoiser: Denoiser, tokens: Tensor) -> Estimate:
    """-log p of a causal model, exact."""
    check_tokens(tokens, denoiser, masks=False)
    values = -take_symbols(denoiser(tokens), tokens).double().sum(1)
    return Estimate(values, torch.zeros_like(values))


def _bytes(value: Tensor) -> bytes:
    """A tensor's memory, row-major."""
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
