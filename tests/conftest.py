"""What every test obeys: the global random states of torch and numpy stay where they were."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "global_random: may move torch's global random state (initialises a network)"
    )


@pytest.fixture(autouse=True)
def global_random_state_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that moved a global random state; `global_random` tests get it put back instead."""
    before = _states()
    yield
    moved = [name for name, state in _states().items() if state != before[name]]
    _restore(before)
    if moved and request.node.get_closest_marker("global_random") is None:
        pytest.fail(f"the global random state of {' and '.join(moved)} moved: pass a generator")


def _states() -> dict[str, object]:
    kind, keys, place, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (kind, keys.tobytes(), place, *rest),
    }


def _restore(states: dict[str, object]) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray(states["torch"]), dtype=torch.uint8))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.frombuffer(keys, dtype=np.uint32), *rest))  # noqa: NPY002
