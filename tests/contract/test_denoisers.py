"""Somebody's own denoisers, selectors and sources: laws, or one line; and what wrappers make of the impossible."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import unmask
from unmask import laws, scores, selectors
from unmask.orders import rules
from unmask.variants import genmd4

TABLE = laws.Table(
    torch.tensor([0.0, 0.1, 0.2, 0.0, 0.05, 0.15, 0.1, 0.0, 0.4], dtype=torch.float64).repeat(9).div(9).log(),
    4,
)
MARKOV = laws.Markov([0.2, 0.5, 0.3], [[0.7, 0.3, 0.0], [0.0, 0.2, 0.8], [0.5, 0.1, 0.4]], 4)
SUPPORT = laws.Support(torch.tensor([[0, 1, 2, 0], [0, 1, 1, 2], [2, 2, 2, 2], [1, 1, 0, 0]]), 3)
LAWS = {"table": TABLE, "markov": MARKOV, "support": SUPPORT}
MARGIN = selectors.top_k(scores.margin, 1)
BLIND = selectors.top_k(scores.at_random(0), 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masked(count: int = 3) -> Tensor:
    return torch.full((count, 4), 3)


@dataclass
class Own:
    """Somebody's denoiser: a law that goes wrong from the call ``since`` on, in the way of ``change``."""

    change: Callable[[Tensor], Any]
    since: int = 0
    base: Any = MARKOV
    calls: int = 0
    mask_id = vocab_size = 3

    def __call__(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        self.calls += 1
        law = self.base(tokens, rows)
        return self.change(law) if self.calls > self.since else law

    def full(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Any:
        return self(tokens, rows), None

    def partial(self, tokens: Tensor, rows: Tensor, cache: Any, *, time: Tensor | None = None) -> Tensor:
        return self(tokens, rows)


WRONG: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "shifted": (lambda law: law + 3, r"probabilities sum to e\^3 at row 0, position \d; expected 1"),
    "a little": (lambda law: law + 0.002, r"probabilities sum to e\^0.002"),
    "logits": (lambda law: 5 * law.clamp(min=-9), r"probabilities sum to e\^"),
    "probabilities": (lambda law: law.exp(), r"probabilities sum to e\^"),
    "NaN": (lambda law: law * torch.nan, r"denoiser returned NaN; expected log-probabilities"),
    "nothing possible": (lambda law: law - torch.inf, r"no symbol is possible at row 0, position \d"),
    "infinite": (lambda law: law.clamp(min=-9) + torch.inf, r"probabilities sum to e\^inf"),
    "half": (
        lambda law: law.to(torch.bfloat16),
        r"returned torch.bfloat16 on cpu; expected float32 or float64",
    ),
    "whole numbers": (lambda law: law.clamp(min=-9).long(), r"returned torch.int64 on cpu"),
    "meta": (lambda law: law.to("meta"), r"returned torch.float64 on meta; expected .* on cpu"),
    "fewer rows": (lambda law: law[:, :0], r"returned shape \[\d+, 0, 3\]; expected \[\d+, \d, 3\]"),
    "more symbols": (lambda law: torch.cat([law, law], -1), r"returned shape \[\d+, \d, 6\]"),
    "a list": (lambda law: law.tolist(), r"returned shape list"),
}

WAYS: dict[str, Callable[[Any], Any]] = {
    "sighted": lambda d: unmask.sample(d, masked(), MARGIN, generator=generator()),
    "blind": lambda d: unmask.sample(d, masked(), BLIND, generator=generator()),
    "substeps": lambda d: unmask.sample(
        d, masked(), selectors.top_k(scores.margin, 2), generator=generator(), substeps=2
    ),
    "scored": lambda d: unmask.log_likelihood(d, MARKOV.sample(3, generator()), MARGIN),
    "bound": lambda d: unmask.nelbo(d, MARKOV.sample(3, generator()), generator=generator(), samples=4),
    "profile": lambda d: unmask.profiles.measure(
        d, MARKOV.sample(9, generator()), generator=generator(), batch_size=3
    ),
    "gains": lambda d: unmask.profiles.measure_gains(
        d, MARKOV.sample(9, generator()), generator=generator(), edges=(0, 1, 3), batch_size=3
    ),
    "timed bound": lambda d: genmd4.nelbo(
        d, MARKOV.sample(9, generator()), torch.ones(3), generator=generator(1), samples=4
    ),
    "tempered": lambda d: unmask.sample(unmask.tempered(d, 0.7), masked(), MARGIN, generator=generator()),
    "guided": lambda d: unmask.sample(unmask.guided(d, MARKOV, 1.0), masked(), BLIND, generator=generator()),
    "guide": lambda d: unmask.sample(unmask.guided(MARKOV, d, 1.0), masked(), MARGIN, generator=generator()),
    "looked ahead": lambda d: unmask.sample(
        MARKOV, masked(), rules.information_gain(d, 1, bypass=1.1), generator=generator()
    ),
}


@pytest.mark.parametrize("since", [0, 1])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", WRONG)
def test_an_own_denoiser_that_gives_no_law_is_one_line(kind: str, way: str, since: int) -> None:
    """Also from the second call on."""
    change, message = WRONG[kind]
    with pytest.raises(ValueError, match=message) as found:
        WAYS[way](Own(change, since))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("way", WAYS)
def test_an_own_denoiser_that_is_a_law_is_welcome(way: str) -> None:
    for change in (lambda law: law, lambda law: law.float(), lambda law: law + 1e-4):
        WAYS[way](Own(change))


def test_what_an_own_denoiser_says_of_visible_positions_does_not_matter() -> None:
    """Rows that fill up a batch of unequal rows are visible positions, and nobody reads them."""

    @dataclass
    class Careless(Own):
        def __call__(
            self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None
        ) -> Tensor:
            law = self.base(tokens, rows)
            return law.where(tokens.gather(1, rows)[..., None] == 3, torch.nan)

    tokens = torch.tensor([[3, 3, 1, 3], [0, 0, 2, 3]])
    found = unmask.sample(Careless(lambda law: law), tokens, MARGIN, generator=generator())
    assert torch.equal(found.log_prob, unmask.sample(MARKOV, tokens, MARGIN, generator=generator()).log_prob)


# --- sources and generators ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda r: torch.full_like(r.rows, 3), r"the source gave the mask for a masked position"),
        (lambda r: torch.full_like(r.rows, -1), r"the source gave symbol -1"),
        (lambda r: torch.full_like(r.rows, 7), r"the source gave symbol 7"),
        (lambda r: r.rows[:, :0], r"the source gave symbols of dtype torch.int64 and shape \[3, 0\]"),
        (lambda r: r.rows.double(), r"the source gave symbols of dtype torch.float64"),
        (
            unmask.given(torch.zeros(3, 5).long()),
            r"given tokens of shape \[3, 5\] for a batch of shape \[3, 4\]",
        ),
        (
            unmask.given(torch.zeros(4, 4).long()),
            r"given tokens of shape \[4, 4\] for a batch of shape \[3, 4\]",
        ),
        (unmask.given(torch.full((3, 4), 3)), r"the source gave the mask"),
    ],
)
@pytest.mark.parametrize("selector", [MARGIN, BLIND])
def test_a_source_that_gives_no_symbols_is_one_line(source: Any, message: str, selector: Any) -> None:
    with pytest.raises(ValueError, match=message) as found:
        unmask.sample(MARKOV, masked(), selector, generator=generator(), source=source)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("wrong", [None, 0, "cpu"])
def test_a_generator_that_is_none_is_one_line(wrong: Any) -> None:
    for call in (
        lambda: unmask.sample(MARKOV, masked(), MARGIN, generator=wrong),
        lambda: unmask.nelbo(MARKOV, MARKOV.sample(2, generator()), generator=wrong),
        lambda: unmask.kernels.commit.sample(
            MARKOV, masked(), unmask.kernels.commit.maskgit(1.0, 1), generator=wrong
        ),
        lambda: unmask.profiles.measure(MARKOV, MARKOV.sample(8, generator()), generator=wrong),
    ):
        with pytest.raises(ValueError, match=r"^generator .*: expected a torch.Generator"):
            call()


@pytest.mark.parametrize("tilt", [torch.nan, torch.inf, -torch.inf])
def test_a_tilt_that_is_no_law_is_one_line(tilt: float) -> None:
    chosen = lambda view: replace(MARGIN(view), tilt=torch.full((3, 1, 3), tilt))  # noqa: E731
    with pytest.raises(ValueError, match=r"tilt is NaN or leaves no symbol possible"):
        unmask.sample(MARKOV, masked(), chosen, generator=generator())


# --- the impossible under wrappers ----------------------------------------------------------------------

SCALES = [-1e30, -40.0, -1.0, -1e-3, -1e-300, 0.0, 1e-300, 1e-3, 0.5, 1.0, 7.0, 1e4, 1e30]
TEMPERATURES = [1e-30, 1e-10, 1e-3, 0.3, 1.0, 4.0, 1e10, 1e30]
OTHERS = {"table": TABLE, "support": SUPPORT, "itself": None}
STATES = torch.cartesian_prod(*[torch.arange(4)] * 4)


def wrapped(base: Any) -> dict[str, Any]:
    """Every wrapper at every setting, and some of wrappers of wrappers."""
    found = {f"tempered {t}": unmask.tempered(base, t) for t in TEMPERATURES}
    found |= {f"nucleus {p}": unmask.nucleus(base, p) for p in (1e-300, 1e-6, 0.5, 0.999999, 1.0)}
    for name, other in OTHERS.items():
        found |= {f"guided by {name} {s}": unmask.guided(base, other or base, s) for s in SCALES}
    for name, weights in {"small": [0.5, 0.0, -2.0], "large": [0.0, 1e30, -1e300]}.items():
        found[f"biased {name}"] = unmask.biased(base, weights)
    deep = {f"tempered .2 of {k}": unmask.tempered(d, 0.2) for k, d in found.items()}
    return found | deep


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", LAWS)
def test_what_the_base_forbids_stays_forbidden_and_nothing_is_nan(name: str, dtype: torch.dtype) -> None:
    base = Own(lambda law: law.to(dtype), base=LAWS[name])
    truth = base(STATES)
    for label, denoiser in wrapped(base).items():
        law = denoiser(STATES)
        assert not law.isnan().any(), label
        assert (law[truth == -torch.inf] == -torch.inf).all(), label
        assert law.logsumexp(-1).abs().max() < 1e-4, label
        if "nucleus" not in label:  # which drops symbols, but never the most probable
            assert (law[truth > -torch.inf] > -torch.inf).all(), label


@pytest.mark.parametrize("name", LAWS)
def test_sampling_under_wrappers_follows_their_likelihood(name: str) -> None:
    base = LAWS[name]
    for denoiser in (
        unmask.guided(base, SUPPORT, 3.0),
        unmask.guided(base, SUPPORT, -2.0),
        unmask.nucleus(unmask.guided(base, TABLE, 1e30), 0.9),
        unmask.tempered(unmask.guided(base, SUPPORT, 1.0), 1e-10),
    ):
        found = unmask.sample(denoiser, masked(40), MARGIN, generator=generator())
        assert found.log_prob.isfinite().all()
        again = unmask.log_likelihood(denoiser, found.tokens, MARGIN)
        torch.testing.assert_close(found.log_prob, again)
        assert (base.log_prob(found.tokens) > -math.inf).all()  # one at a time, nothing impossible is drawn


@pytest.mark.parametrize("power", [1e-6, 0.5, 3.0, 1e6])
def test_sharpening_keeps_what_is_impossible(power: float) -> None:
    order = rules.sharpened(MARGIN, power)
    found = unmask.sample(SUPPORT, masked(60), order, generator=generator())
    assert (SUPPORT.log_prob(found.tokens) > -math.inf).all()
    torch.testing.assert_close(found.log_prob, unmask.log_likelihood(SUPPORT, found.tokens, order))


def test_a_guide_that_forbids_has_no_say_there() -> None:
    """p = (.5, .3, .2), guide (0, .6, .4), scale 1: weights .5, .3^2/.6, .2^2/.4, and not all on the first."""
    ours = laws.Table(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log(), 1)
    theirs = laws.Table(torch.tensor([0.0, 0.6, 0.4], dtype=torch.float64).log(), 1)
    got = unmask.guided(ours, theirs, 1.0)(torch.tensor([[3]])).exp()[0, 0]
    assert got.tolist() == pytest.approx([2 / 3, 1 / 5, 2 / 15])


@pytest.mark.parametrize("value", [0, -1.0, 1e-31, 1e-320, 1e31, math.inf, math.nan, "1", True])
def test_temperatures_that_no_float_holds_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^temperature .*: expected a"):
        unmask.tempered(TABLE, value)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e31, None, True])
def test_scales_that_are_not_finite_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^scale .*: expected a number"):
        unmask.guided(TABLE, TABLE, value)
