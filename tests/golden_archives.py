"""The archives that every version must decode: ``python tests/golden_archives.py`` writes those of a new format version.

Never overwrite one of an older version.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from helpers import CHAIN

from unmask import Sampler, codec, denoisers, laws, plans, selectors
from unmask.networks import Transformer
from unmask.orders import presets
from unmask.orders.samplers import plans_by_count

FOLDER = Path(__file__).parent / "golden"


def symbols(count: int, size: int, seed: int) -> np.ndarray:
    """Symbols that are the same everywhere."""
    return np.array([(seed + n * n + n // 3 * seed) % 97 % size for n in range(count)], np.int64)


def law() -> codec.Subject:
    return codec.of_denoiser(
        laws.Markov([0.2, 0.5, 0.3], CHAIN, 12), 12, "Markov of tests/helpers.py, length 12"
    )


def network() -> codec.Subject:
    """A transformer whose weights are small multiples of 1/16."""
    with torch.random.fork_rng():
        made = Transformer(5, 10, 16, 2, 2, rotary=True, ends=True)
    for n, (_, value) in enumerate(sorted(made.state_dict().items())):
        whole = symbols(value.numel(), 17, n) - 8
        value.copy_(torch.from_numpy(whole / 16).view(value.shape) + (1 if value.ndim == 1 else 0))
    subject = codec.of_denoiser(
        denoisers.from_logits(made, 5, 5), 10, "transformer of tests/golden_archives.py"
    )
    return codec.Subject(**vars(subject) | {"ends": True, "cut": True})


LAW_ITEMS = [symbols(n, 3, n) for n in (0, 1, 5, 12, 13, 40, 200)] + [np.array([7, 8]), np.full(90, 250)]
NETWORK_ITEMS = [symbols(n, 4, n) for n in range(11)] + [symbols(30, 5, 1)]


IN_BLOCKS = Sampler(selectors.in_blocks(presets.threshold(0.5), 4), temperature=0.9)
BY_TABLE = Sampler(presets.moment(plans_by_count({12: (2, 4, 6), 8: (1, 7)}), 2.5, 11), substeps=2)


def archives() -> dict[str, bytes]:
    """Contents by file name."""
    return {
        "archive-v1.umz": codec.compress(law(), LAW_ITEMS, plan=3, seed=11, band=1e-5),
        "archive-v1-margin.umz": codec.compress(
            law(), LAW_ITEMS, plan=lambda n: (1,) * n, order=codec.ORDERS[4]
        ),
        "archive-v1-network.umz": codec.compress(network(), NETWORK_ITEMS, plan=2, substeps=2),
        "archive-v3-threshold.umz": codec.compress(
            network(), NETWORK_ITEMS, sampler=IN_BLOCKS, shorter=False
        ),
        "archive-v3-table.umz": codec.compress(law(), LAW_ITEMS, sampler=BY_TABLE),
        "archive-v4.umz": codec.compress(law(), LAW_ITEMS, plan=3, seed=11, band=1e-5, together=4),
        "archive-v4-network.umz": codec.compress(
            network(), NETWORK_ITEMS, sampler=IN_BLOCKS, shorter=False, together=256
        ),
        "archive-v5.umz": codec.compress(
            law(), LAW_ITEMS, plan=partial(plans.in_proportion, (1, 1, 3, 2, 5)), seed=11, band=1e-5
        ),
        "archive-v5-network.umz": codec.compress(
            network(),
            NETWORK_ITEMS,
            plan=partial(plans.in_proportion, (2, 1, 3, 4)),
            substeps=2,
            shorter=False,
            together=3,
        ),
    }


if __name__ == "__main__":
    for name, data in archives().items():
        if not (FOLDER / name).exists():  # an archive of a format version never changes
            (FOLDER / name).write_bytes(data)
