"""Modules of version 0.1 under their old names, for one version: the first use of each warns with the new name."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

NEW_NAMES = {
    "caching": "denoisers.caches",
    "commit": "kernels.commit",
    "corruption": "masking.corruption",
    "genmd4": "variants.genmd4",
    "objectives": "masking.objectives",
    "presets": "orders.presets",
    "remask": "kernels.remask",
    "rules": "orders.rules",
    "schedules": "masking.schedules",
    "sources": "orders.sources",
    "upscale": "variants.upscale",
}
"""Old name below ``unmask`` -> new one."""


def moved(name: str) -> ModuleType:
    """The module that had this name; warns at its first use."""
    old, new = f"unmask.{name}", f"unmask.{NEW_NAMES[name]}"
    if old not in sys.modules:
        warnings.warn(f"{old} is now {new}; the old name goes in the next version", FutureWarning, 3)
        sys.modules[old] = import_module(new)
    return sys.modules[old]


class _Finder(MetaPathFinder, Loader):
    """Finds the old names where they are imported as modules."""

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """A spec for an old name, None for all others."""
        package, _, last = name.rpartition(".")
        return spec_from_loader(name, self) if package == "unmask" and last in NEW_NAMES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module under its new name."""
        return moved(spec.name.rpartition(".")[2])

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: it is there already."""


def watch() -> None:
    """Makes the old names importable; done once, when `unmask` is imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
