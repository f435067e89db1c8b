"""Bounds on the cost of a plan, each with its condition, in nats; KL with the order disclosed unless said.

E(plan) is `Profile.kl`: a uniform random order, exact conditionals. Labels B1 to B6 are those of the design
notes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unmask.base.numbers import real, whole
from unmask.base.profile import Profile, check
from unmask.planning.families import boundaries


@dataclass(frozen=True)
class Certificates:
    """The least rho for which a plan costs at most rho TC, rho DTC and rho M nats, whatever the law.

    Multiply by a known or estimated total correlation, dual total correlation or mixed M to get a bound in
    nats.
    """

    tc: float
    dtc: float
    log_odds: float


def certificates(plan: Sequence[int]) -> Certificates:
    """The certificates rho of any plan (B6), pure numbers; bound TC, DTC or M of the law to bound E(plan).

    An increment d(i) inside a block (a, a+s] is paid a+s-i times, and weighs N-i in TC, i in DTC, i(N-i)/N
    in M. The ratio is largest at i = a+1. Derived; condition: uniform random order, exact conditionals.
    """
    points = np.asarray(boundaries(check(plan, boundaries(plan)[-1])))
    total, first = points[-1], points[:-1] + 1
    paid = np.diff(points) - 1
    inside = paid > 0
    if not inside.any():
        return Certificates(0.0, 0.0, 0.0)
    paid, first = paid[inside], first[inside]
    last = total - first
    return Certificates(
        tc=float((paid / last).max()),
        dtc=float((paid / first).max()),
        log_odds=float((total * paid / (first * last)).max()),
    )


def by_blocks(plan: Sequence[int], profile: Profile) -> float:
    """B1, block by block: E <= sum_k (s_k - 1) [f(a_k - 1) - f(a_{k-1})], nats.

    Condition: uniform random order. Derived; also Chen, Cong, Li (COLT 2026).
    """
    points = np.asarray(boundaries(check(plan, profile.length)))
    f = profile.information
    return float((np.diff(points) - 1) @ (f[points[1:] - 1] - f[points[:-1]]))


def by_largest_block(plan: Sequence[int], profile: Profile) -> float:
    """B1, largest block: E <= (s_max - 1) f(N-1), nats; f(N-1) = (TC + DTC)/N. Uniform random order."""
    return (max(check(plan, profile.length)) - 1) * float(profile.information[-1])


def by_vocabulary(plan: Sequence[int], vocab_size: int) -> float:
    """B1 for any law over ``vocab_size`` symbols: E <= (s_max - 1) ln q, nats; needs no profile.

    For equal blocks this is (N/K - 1) ln q, free of N at fixed N/K. Reed-Solomon codes attain it.
    Condition: uniform random order.
    """
    return (int(np.diff(boundaries(plan)).max()) - 1) * math.log(whole(vocab_size, "vocab_size", 1))


def by_power_of_two(plan: Sequence[int], profile: Profile) -> float:
    """B2: E <= (2^ceil(log2 s_max) - 1) f(N-1), nats (Li, Cai, 2505.21400), implied by B1.

    Condition: uniform random order.
    """
    largest = max(check(plan, profile.length))
    return ((1 << (largest - 1).bit_length()) - 1) * float(profile.information[-1])


def by_random_phase(size: int, profile: Profile) -> float:
    """B3: blocks of ``size``, the first uniform on 1..size: mean E <= (size - 1)/2 f(N-1), nats.

    Condition: uniform random order; holds for every law. Derived. See `plans.random_phase_uniform`.
    """
    return (whole(size, "size", 1) - 1) / 2 * float(profile.information[-1])


def by_any_order(plan: Sequence[int], vocab_size: int) -> float:
    """B4: KL <= (N - K) ln q, nats, for every fixed or adversarial order that does not look at symbols.

    Derived. Linear in N: freedom from N needs a random order. Copies inside each block attain it.
    """
    points = boundaries(plan)
    return (points[-1] - (len(points) - 1)) * math.log(whole(vocab_size, "vocab_size", 1))


def steps_for(correlation: float, max_kl: float, length: int) -> int:
    """B5: steps that suffice for E <= ``max_kl`` nats, given a bound ``correlation`` on TC (or on DTC), nats.

    2 + (1 + ln N)(1 + ceil(TC/eps)) steps of `plans.chen_cong_li_tc` (or `_dtc`); Chen, Cong, Li (COLT
    2026), theorem 9. Condition: uniform random order. Some laws need a multiple of min(TC, DTC) ln N / eps.
    """
    correlation, max_kl = real(correlation, "correlation"), real(max_kl, "max_kl")
    length = whole(length, "length", 1)
    if not (correlation >= 0 and math.isfinite(correlation) and max_kl > 0):
        raise ValueError(f"got correlation={correlation}, max_kl={max_kl}, expected nats >= 0 and > 0")
    return math.floor(2 + (1 + math.log(length)) * (1 + math.ceil(correlation / max_kl)))
