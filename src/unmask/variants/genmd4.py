"""GenMD4: masked diffusion with a learnt schedule per symbol, alpha_v(t) = 1 - (1 - eps) t^w_v (MD4, arXiv 2406.04329).

A symbol with a larger power w is masked later, hence unmasked earlier. Being masked is then evidence about the symbol, so
the best law mu of the masked symbols depends on the time, which networks read as the keyword ``time``. Equal powers
are MD4. Along the whole of 0 < t < 1 without a cut-off only the ratios of the powers matter: time can be rescaled.

Shapes: tokens int64 [B, L] (clean), powers float [V], time float64 [B], log_probs float [B, L, V] (log mu).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.base.numbers import real, whole
from unmask.base.numbers import seed as checked_seed
from unmask.base.types import Choice, Denoiser, Estimate, Selector, View
from unmask.denoisers import ask_everywhere, check_tokens, take_symbols
from unmask.masking.corruption import Draws, low_discrepancy
from unmask.masking.schedules import check_times
from unmask.networks import Transformer
from unmask.orders.rules import LEAST, law_of
from unmask.orders.scores import by_slices, public_uniform, spread
from unmask.orders.selectors import take

EPS = 1e-4
"""The chance that a token is still visible at time 1, in MD4's code."""

FIRST = 1e-3
"""The earliest time that is trained, in MD4's code."""

ONE = math.log(math.e - 1)
"""softplus(ONE) = 1: where powers start."""

_LONGEST = 8


# --- the forward process ---------------------------------------------------------------------------


def hidden_probability(tokens: Tensor, powers: Tensor, time: Tensor, eps: float = EPS) -> Tensor:
    """P(masked at time t) of each token, (1 - eps) t^w, float64 [B, L]; gradients reach the powers."""
    return (1 - eps) * time.double()[:, None] ** powers.double()[tokens]


def log_mask_probability(hidden: Tensor, probability: Tensor) -> Tensor:
    """ln q of masks bool [B, L], each position hidden with its own probability; nats, float64 [B]."""
    return torch.where(hidden, probability, 1 - probability).log().sum(1)


# --- the bound -------------------------------------------------------------------------------------


def losses(log_probs: Tensor, tokens: Tensor, hidden: Tensor, powers: Tensor, time: Tensor) -> Tensor:
    """(1/t) sum over masked of w_x (-ln mu_x - 1) + sum_v w_v mu_v, nats per unit of time, [B].

    Its mean over masks, integrated over time, is the bound without its `end_terms`.
    """
    own = take_symbols(log_probs, tokens)
    powers = powers.to(log_probs.dtype)
    mean = (log_probs.exp() * powers).sum(
        -1
    )  # not a matrix product: under autocast that would be in bfloat16
    each = powers[tokens] * (-own - 1) + mean
    return torch.where(hidden, each, 0.0).sum(1) / time.to(each.dtype)


def end_terms(
    tokens: Tensor, powers: Tensor, eps: float = EPS, first: float = FIRST
) -> tuple[Tensor, Tensor]:
    """What the integral from ``first`` to 1 leaves out, nats per sequence: reconstruction and prior, float64 [B] each.

    A token still masked at ``first`` is told by p(v) ~ first^w_v; one still visible at time 1 against a uniform prior.
    MD4, arXiv 2406.04329, appendix I; its code sets the prior to 0.
    """
    prior = torch.full(tokens.shape[:1], tokens.shape[1] * eps * math.log(len(powers)), dtype=torch.float64)
    prior = prior.to(tokens.device)
    if first == 0:
        return torch.zeros_like(prior), prior
    guess = torch.log_softmax(powers.double() * math.log(first), dim=0)
    left = hidden_probability(tokens, powers, torch.full_like(prior, first), eps)
    return -(left * guess[tokens]).sum(1), prior


def surrogate(pair: Tensor, log_q: Tensor) -> Tensor:
    """The mean loss of two masks, float [B], with the gradient of their expectation; both arguments [B, 2].

    ``pair`` holds the losses of two independent masks at one time, whose log-probabilities ``log_q`` depend on the
    powers: each mask's score function is weighted by its loss minus the other's (leave-one-out, MD4, arXiv 2406.04329,
    appendix I). Terms that have a gradient only are added as x - x, so the value stays the mean.
    """
    gap = (pair[:, 0] - pair[:, 1]).detach() / 2
    chance = gap * (log_q[:, 0] - log_q[:, 1])
    return pair.mean(1) + (chance - chance.detach())


def training_loss(
    network: nn.Module,
    tokens: Tensor,
    time: Tensor,
    noise: Tensor,
    eps: float = EPS,
    first: float = FIRST,
) -> Tensor:
    """The bound of each sequence, nats, float64 [B], with gradients for the network and its ``powers`` float [V].

    ``time`` float64 [B] is uniform on first..1 and ``noise`` float [B, 2, L] uniform on 0..1: two masks per sequence.
    """
    powers: Tensor = network.powers  # type: ignore[assignment]
    twice, times = tokens.repeat_interleave(2, 0), time.repeat_interleave(2)
    probability = hidden_probability(twice, powers, times, eps)
    hidden = noise.flatten(0, 1) < probability
    logits = network(twice.masked_fill(hidden, network.mask_id), time=times)  # type: ignore[arg-type]
    log_probs = torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)
    each = losses(log_probs, twice, hidden, powers, times).double()
    inside = surrogate(each.view(-1, 2), log_mask_probability(hidden, probability).view(-1, 2))
    return (1 - first) * inside + sum(end_terms(tokens, powers, eps, first))


def _positive(powers: Tensor, symbols: int | None = None) -> Tensor:
    """The powers as float64 [V]; ValueError unless they are positive and finite, of so many ``symbols`` if told."""
    w = powers.double()
    fits = w.ndim == 1 and symbols in (None, len(w))
    if not fits or not (w > 0).all() or not w.isfinite().all():
        expected = "vocab_size" if symbols is None else symbols
        raise ValueError(f"powers of shape {list(w.shape)}: expected positive finite numbers [{expected}]")
    return w


def nelbo(
    denoiser: Denoiser,
    tokens: Tensor,
    powers: Tensor,
    *,
    generator: torch.Generator,
    samples: int = 16,
    item_ids: Tensor | None = None,
    eps: float = EPS,
    first: float = FIRST,
) -> Estimate:
    """Negative evidence lower bound, nats per sequence: value and standard error, float64 [B]; end terms included.

    One mask at each of ``samples`` times per sequence, stratified over first..1, the noise belonging to ``item_ids`` as in
    `unmask.nelbo`. The standard error ignores the
    stratification, so it is on the safe side; it is NaN for one sample.
    """
    samples, eps, first = whole(samples, "samples", 1), real(eps, "eps"), real(first, "first")
    if not 0 <= eps < 1 or not 0 <= first < 1:
        raise ValueError(f"eps {eps}, first {first}: expected 0 <= eps < 1 and 0 <= first < 1")
    check_tokens(tokens, denoiser, masks=False)
    powers = _positive(powers.detach(), denoiser.vocab_size)
    draw = Draws.of(generator, tokens, item_ids)
    draws = []
    for s in range(samples):
        time = first + (1 - first) * (1 - draw.level(s, samples))
        hidden = draw.uniforms(tokens.shape[1], s) < hidden_probability(tokens, powers, time, eps)
        log_probs = ask_everywhere(denoiser, tokens.masked_fill(hidden, denoiser.mask_id), hidden, time=time)
        draws.append((1 - first) * losses(log_probs.double(), tokens, hidden, powers, time))
    values = torch.stack(draws)
    error = values.std(0) / math.sqrt(samples) if samples > 1 else torch.full_like(values[0], torch.nan)
    return Estimate(values.mean(0) + sum(end_terms(tokens, powers, eps, first)), error)


def exact_bound(
    denoiser: Denoiser,
    tokens: Tensor,
    powers: Tensor,
    *,
    eps: float = 0.0,
    first: float = 0.0,
    nodes: int = 600,
) -> Tensor:
    """The same bound by all 2^L masks and Gauss-Legendre in the fourth root of time, float64 [B]; L <= 8.

    Differentiable in the powers. ValueError for longer sequences.
    """
    eps, first, nodes = real(eps, "eps", 0, 1), real(first, "first", 0, 1), whole(nodes, "nodes", 1)
    check_tokens(tokens, denoiser, masks=False)
    if tokens.shape[1] > _LONGEST:
        raise ValueError(f"length {tokens.shape[1]}: expected 1..{_LONGEST}, since all masks are visited")
    powers = _positive(powers, denoiser.vocab_size)
    masks = torch.tensor(list(itertools.product([False, True], repeat=tokens.shape[1])))
    points, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(nodes))
    low = first**0.25
    roots = low + (1 - low) * (points + 1) / 2
    time, hidden = (roots**4).repeat_interleave(len(masks)), masks.repeat(nodes, 1)
    share = (weights * (1 - low) * 2 * roots**3).repeat_interleave(len(masks))
    values = []
    for row in tokens:
        clean = row.expand(len(hidden), -1)
        chance = log_mask_probability(hidden, hidden_probability(clean, powers, time, eps)).exp()
        visible = clean.masked_fill(hidden, denoiser.mask_id)
        log_probs = ask_everywhere(denoiser, visible, hidden, time=time).double()
        values.append((share * chance) @ losses(log_probs, clean, hidden, powers, time))
    return torch.stack(values) + sum(end_terms(tokens, powers, eps, first))


def draw_times(count: int, generator: torch.Generator, first: float = FIRST) -> Tensor:
    """Stratified times for ``count`` sequences, uniform on first..1, never 0; float64 [count]."""
    return 1 - (1 - first) * low_discrepancy(count, generator)


# --- the reverse process ---------------------------------------------------------------------------


def reverse(powers: Tensor, times: Tensor, seed: int) -> Selector:
    """Reverse diffusion on a grid: a masked position unmasks from t to s with sum_v (1 - (s/t)^w_v) mu_v.

    ``powers`` float [V]; ``times`` float64 [T + 1] falls from 1 to 0, such as `schedules.uniform_grid` (T). A symbol v
    then has probability in proportion to (1 - (s/t)^w_v) mu_v, which is a tilt of mu (MD4, arXiv 2406.04329, section 6).
    Which positions unmask is public: each has one uniform per order_id and falls when the probability of having
    stayed masked so far sinks below it (derived), so there is an exact likelihood given the order. The last step unmasks
    the rest. With equal powers it is `selectors.ancestral` of the polynomial schedule, position for position.
    """
    w = _positive(powers.detach())
    times, seed = check_times(times), checked_seed(seed)
    steps = len(times) - 1
    ratios = (times[1:] / times[:-1]).double().tolist()

    def choose(view: View) -> Choice:
        step = min(view.step, steps - 1)
        left = unmask_probability(w.to(view.tokens.device), 0.0 if step == steps - 1 else ratios[step])
        law = law_of(view)
        if law.shape[-1] != len(w):
            raise ValueError(f"{len(w)} powers for {law.shape[-1]} symbols; expected one a symbol")
        stayed = view.memory[0] if view.memory else torch.ones_like(view.tokens, dtype=torch.float64)
        rate = spread(view, by_slices(lambda law: law.double().exp() @ left, law))
        stayed = torch.where(view.masked, stayed * (1 - rate), stayed)
        u = public_uniform(view, seed)
        falls = view.masked & ((u >= stayed) | (step == steps - 1))
        choice = take(view, u.masked_fill(~falls, -torch.inf), falls.sum(1))
        tilt = left.log().clamp(min=LEAST).expand(*choice.rows.shape, -1)
        return Choice(choice.rows, tilt, memory=(stayed,))

    def time(view: View) -> Tensor:
        now = times[min(view.step, steps - 1)].to(view.tokens.device)
        return now.expand(len(view.tokens))

    return Selector(choose, time=time, name=f"genmd4.reverse({steps} steps, {seed})")


def unmask_probability(powers: Tensor, ratio: float) -> Tensor:
    """1 - (s/t)^w_v, the chance that a masked symbol v is unmasked when time falls by the factor s/t; float64 [V]."""
    if ratio == 0:
        return torch.ones_like(powers)
    return -torch.expm1(powers * math.log(ratio))


# --- the network -----------------------------------------------------------------------------------


class GenMD4Network(nn.Module):
    """A timed transformer together with the raw powers that are learnt with it, w = softplus(raw), at first 1.

    ``raw`` float [V] is a plain parameter, which weight decay leaves alone: its scale is hardly determined.
    """

    def __init__(self, network: Transformer, raw: Tensor | None = None) -> None:
        super().__init__()
        if not network.shape.timed:
            raise ValueError("the network takes no time; expected a Transformer with timed=True")
        self.network = network
        self.raw = nn.Parameter(torch.full((network.shape.vocab_size,), ONE) if raw is None else raw)

    @property
    def powers(self) -> Tensor:
        """The power w of each symbol, [V]."""
        return F.softplus(self.raw)

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments that build the inner network again."""
        return self.network.config

    @property
    def mask_id(self) -> int:
        """Symbol id of the mask."""
        return self.network.mask_id

    def forward(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        """Logits float [B, R, V] at rows."""
        logits: Tensor = self.network(tokens, rows, time=time)
        return logits

    def full(
        self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """As `Transformer.full`."""
        return self.network.full(tokens, rows, time=time)

    def partial(
        self,
        tokens: Tensor,
        rows: Tensor,
        cache: list[tuple[Tensor, Tensor]],
        *,
        time: Tensor | None = None,
    ) -> Tensor:
        """As `Transformer.partial`."""
        return self.network.partial(tokens, rows, cache, time=time)
