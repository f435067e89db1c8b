"""Profiles by their public name, `unmask.profiles`; they live in `unmask.planning`."""

from unmask.base.profile import Profile
from unmask.planning.estimators import choose, interpolated, isotonic, smooth
from unmask.planning.profiles import (
    calibration,
    conditioned,
    measure,
    measure_entropies,
    measure_gains,
    resampled,
)

__all__ = [
    "Profile",
    "calibration",
    "choose",
    "conditioned",
    "interpolated",
    "isotonic",
    "measure",
    "measure_entropies",
    "measure_gains",
    "resampled",
    "smooth",
]
