"""The field's samplers by name: functions of a few lines that put the public pieces together, all with a likelihood.

Copy a body and change it: nothing here can do what scores, selectors and rules cannot. "Exact at 1" means
that with exact conditionals and one position per call (plan 1, the default) the sampler's law is the data
law.

* ``ancestral``: binomial counts at random, blind. Exact in the limit of many steps.
* ``first_hitting``: random, one per call, blind. Exact.
* ``random``: random, blind. Exact at 1; its KL is known from the profile.
* ``left_to_right``: the first positions, blind. Exact at 1.
* ``confidence`` (TPP), ``margin``, ``noisy_margin``, ``entropy``: the most certain. Exact at 1.
* ``moment``: sum p^beta by Gumbel top-k. Exact at 1.
* ``moment_sampler``: the same, symbols from p^beta. No guarantee: MaskGIT's law for k << N.
* ``race``: MaskGIT's own law, chosen first. Biased, but its likelihood is known.
* ``halton``: quasi-random on a grid, blind. Exact at 1.
* ``bisection``: bit reversal, level by level, blind. Exact on Markov chains in about 1 + log2 N calls.
* ``hybrid``: explores, then exploits. Exact at 1.
* ``eb``: entropies within a budget. KL at most gamma times the calls.
* ``threshold``: all above tau; ``factor``: all as certain as their number asks. With arg-max symbols and limit <= 1,
  ``factor`` takes the arg-max of the joint law.
* ``fork``: all above tau, or a guess where two symbols are about equally probable, for a search that goes back.
* ``klass``: all that are certain and stable. No guarantee.
* ``punt``: all that a look ahead finds independent of better ones, within eps nats.
* ``pc``: early, certain and rare; ``information_gain``: the best of several by one look ahead. Exact at 1.

Rules that draw first (MaskGIT as published, LLaDA's low confidence) are in `unmask.kernels.commit`, those that mask
again in `unmask.kernels.remask`. For blocks wrap a preset in `selectors.in_blocks`, for spacing in `rules.spaced`,
for partial caching pass ``substeps``. Symbols are drawn at temperature 1 unless the denoiser is `tempered`.
Orders by certainty read the law before tempering; eb, klass, punt, race and information_gain read the law
that symbols are drawn from, which they are about.
"""

from __future__ import annotations

from torch import Tensor

from unmask.base.types import Denoiser, PerStep, Plan, Score, Selector
from unmask.masking import schedules
from unmask.orders import lookahead, rules, scores, selectors
from unmask.orders.described import described
from unmask.planning import families

CERTAIN = scores.on_base(scores.confidence)
"""The largest probability before tempering."""


@described
def ancestral(steps: int = 64, seed: int = 0) -> Selector:
    """Reverse diffusion with the linear schedule on ``steps`` equal time steps; binomial counts (MDLM, MD4)."""
    return selectors.ancestral(schedules.linear(), schedules.uniform_grid(steps), seed)


@described
def first_hitting(seed: int = 0) -> Selector:
    """Ancestral sampling in continuous time, one position per call (arXiv 2409.02908). Exact."""
    return selectors.first_hitting(schedules.linear(), seed)


@described
def random(plan: Plan = 1, seed: int = 0) -> Selector:
    """A uniformly random order. Its KL, order disclosed, is ``profile.kl(plan)`` on average."""
    return selectors.top_k(scores.at_random(seed), plan)


@described
def left_to_right(plan: Plan = 1) -> Selector:
    """The first masked positions: an autoregressive model, or k neighbours at once, which is the worst for chains."""
    return selectors.top_k(scores.left_to_right, plan)


@described
def confidence(plan: Plan = 1) -> Selector:
    """Top probability position (TPP): the largest max_v p, then a draw. Reads the law before tempering.

    LLaDA's low-confidence rule, which draws first and keeps the luckiest draws, is another sampler and biased
    (Jeon et al. 2026). Source: arXiv 2502.06768.
    """
    return selectors.top_k(CERTAIN, plan)


@described
def margin(plan: Plan = 1) -> Selector:
    """The largest gap between the two best probabilities, before tempering (arXiv 2502.06768)."""
    return selectors.top_k(scores.on_base(scores.margin), plan)


@described
def noisy_margin(plan: Plan = 1, scale: PerStep = 0.5, seed: int = 0) -> Selector:
    """`margin` plus ``scale`` times public Gumbel noise: 0.5 in the puzzles of arXiv 2502.06768, sigma unstated for text.

    Their code anneals it, ``lambda n: 0.5 * (1 - (n + 1) / steps)``.
    """
    return selectors.top_k(scores.with_noise(scores.on_base(scores.margin), scale, seed), plan)


@described
def entropy(plan: Plan = 1) -> Selector:
    """The least entropy, before tempering."""
    return selectors.top_k(scores.on_base(scores.negative_entropy), plan)


@described
def moment(plan: Plan = 1, beta: PerStep = 2.0, seed: int = 0) -> Selector:
    """The order of the moment sampler (k draws without replacement, weights sum p^beta), symbols from p: unbiased.

    beta 2 is MaskGIT's order at choice temperature 1. Source: arXiv 2510.04525; unbiased symbols derived.
    """
    return selectors.top_k(scores.moment(beta, seed), plan)


@described
def moment_sampler(plan: Plan = 1, alpha: PerStep = 1.0, seed: int = 0) -> Selector:
    """The moment sampler: MaskGIT's order and MaskGIT's sharpening, symbols from p^beta with beta = 1 + 1/alpha.

    It tends to MaskGIT with choice temperature alpha as k/N falls, and sharpens more for large k/N; anneal it
    with `rules.maskgit_alpha`. Biased at any number of steps. Source: arXiv 2510.04525.
    """

    beta = rules.exponent(alpha)
    return rules.sharpened(moment(plan, beta, seed), beta)


@described
def race(plan: Plan = 1, alpha: PerStep = 1.0, seed: int = 0) -> Selector:
    """MaskGIT's law with a likelihood given its noise, see `rules.race`. Biased: at alpha 1 it follows about p^2."""
    return rules.race(plan, alpha, seed)


@described
def halton(height: int, width: int, plan: Plan | None = None, shift_seed: int | None = None) -> Selector:
    """The Halton order of a row-major grid; by default the arccos plan in at most 32 calls (Besnier et al., ICLR 2025).

    Their inverse temperature rises from 1 to 1.2: wrap in ``rules.sharpened(.., lambda n: 1 + 0.2 * n /
    31)``.
    """
    score = scores.halton(height, width, shift_seed)
    return selectors.top_k(score, _arccos if plan is None else plan)


def _arccos(masked: int) -> tuple[int, ...]:
    return families.arccos(masked, min(32, masked))


@described
def bisection(plan: Plan | None = None) -> Selector:
    """Bit reversal; by default one level per call, which is exact on every first-order Markov chain (derived)."""
    if plan is None:
        return selectors.all_best(scores.bisection_levels)
    return selectors.top_k(scores.bisection, plan)


@described
def hybrid(
    plan: Plan = 1,
    share: PerStep = 0.5,
    explore: Score = scores.bisection,
    exploit: Score = CERTAIN,
) -> Selector:
    """Each step takes its first ``share`` from an exploring order, the rest from an exploiting one (arXiv 2510.04525)."""
    return selectors.hybrid(explore, exploit, share, plan)


@described
def eb(gamma: float = 0.1) -> Selector:
    """Entropy-bounded: as many of the most certain positions as gamma nats allow (arXiv 2505.24857; 0.01 to 0.1 usual).

    Each call adds at most gamma nats of KL, order disclosed. Reads the law that symbols are drawn from.
    """
    return selectors.entropy_budget(gamma)


@described
def threshold(tau: float = 0.9) -> Selector:
    """All positions whose best probability is at least tau, and always one (Fast-dLLM, arXiv 2505.22618)."""
    return selectors.threshold(CERTAIN, tau)


@described
def fork(tau: float = 0.999) -> Selector:
    """As `threshold`; where nothing is that sure, the position where two symbols share the probability (`scores.fork`).

    For `unmask.backtrack`, which tries one symbol and then the other. Without a search `threshold` guesses better.
    """
    return selectors.threshold(CERTAIN, tau, scores.on_base(scores.fork))


@described
def factor(limit: float = 1.0) -> Selector:
    """Fast-dLLM's factor rule, (n + 1) (1 - c_n) < limit, on the law before tempering (arXiv 2505.22618)."""
    return selectors.factor(limit, CERTAIN)


@described
def klass(tau: float = 0.6, eps: float = 0.015, plan: Plan = 1) -> Selector:
    """All positions above tau whose law moved by less than eps nats in the last two steps (KLASS, arXiv 2511.05664)."""
    return rules.stable(plan, tau, eps, 2)


@described
def pc(background: Tensor, plan: Plan = 1, decay: float = 0.25, clip: float = 10.0) -> Selector:
    """Early positions, certain symbols, rare symbols (PC-Sampler, arXiv 2508.13021); background probabilities [V]."""
    return selectors.top_k(scores.on_base(scores.position_prior(background, decay, clip)), plan)


@described
def information_gain(denoiser: Denoiser, plan: Plan = 1, candidates: int = 8, seed: int = 0) -> Selector:
    """The best of ``candidates`` batches by a look ahead through the same denoiser (arXiv 2602.18176); nfe counts it."""
    return rules.information_gain(denoiser, plan, candidates=candidates, seed=seed)


@described
def punt(denoiser: Denoiser, eps: float = 0.05) -> Selector:
    """All positions that move by at most eps nats once better ones are filled in (PUNT, arXiv 2510.21961); tests count."""
    return lookahead.independent(denoiser, eps)
