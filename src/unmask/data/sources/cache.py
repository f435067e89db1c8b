"""Where fetched and prepared data are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """The cache folder: ``$UNMASK_CACHE``, or ``~/.cache/unmask``."""
    return Path(os.environ.get("UNMASK_CACHE", "") or Path.home() / ".cache" / "unmask")
