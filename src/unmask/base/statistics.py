"""Small statistics for reports."""

from __future__ import annotations

from statistics import NormalDist

from unmask.base.numbers import real, whole


def wilson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval (low, high) of a share, dimensionless; inside [0, 1], good near both ends.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z the normal quantile of ``level``. No trials
    give (0, 1). ValueError unless 0 <= successes <= trials and 0 < level < 1. Source: E. B. Wilson, "Probable
    inference", JASA 22 (1927), pp. 209-212.
    """
    successes, trials, level = whole(successes, "successes"), whole(trials, "trials"), real(level, "level")
    if not 0 <= successes <= trials or not 0 < level < 1:
        raise ValueError(
            f"{successes} of {trials} at level {level}: expected 0 <= successes <= trials, 0 < level < 1"
        )
    if trials == 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    share = successes / trials
    middle = share + z2 / (2 * trials)
    spread = (z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) ** 0.5
    low, high = (max(0.0, min(1.0, (middle + s * spread) / (1 + z2 / trials))) for s in (-1, 1))
    return (0.0 if successes == 0 else low), (1.0 if successes == trials else high)
