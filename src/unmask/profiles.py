"""Profiles by their public name, `unmask.profiles`; they live in `unmask.planning`."""

from unmask.base.profile import Profile
from unmask.planning.estimators import choose, interpolated, isotonic, smooth
from unmask.planning.profiles import (
    calibration,
    conditioned,
    heldout_of,
    measure,
    measure_entropies,
    measure_gains,
    resampled,
    with_heldout,
)

__all__ = [
    "Profile",
    "calibration",
    "choose",
    "conditioned",
    "heldout_of",
    "interpolated",
    "isotonic",
    "measure",
    "measure_entropies",
    "measure_gains",
    "resampled",
    "smooth",
    "with_heldout",
]
