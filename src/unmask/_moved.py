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
    "data.cache": "data.sources.cache",
    "data.fetch": "data.sources.fetch",
    "data.images": "data.readers.images",
    "data.lines": "data.readers.lines",
    "data.packages": "data.sources.packages",
    "data.rdata": "data.readers.rdata",
    "data.text": "data.readers.text",
    "data.wikipedia": "data.readers.wikipedia",
    "genmd4": "variants.genmd4",
    "head_loss": "masking.head_loss",
    "objectives": "masking.objectives",
    "presets": "orders.presets",
    "quality": "evaluation.judges",
    "remask": "kernels.remask",
    "rules": "orders.rules",
    "schedules": "masking.schedules",
    "sources": "orders.sources",
    "upscale": "variants.upscale",
}
"""Old name below ``unmask`` -> new one."""

ALSO = {"objectives": "masking.enumeration"}
"""What else stood in an old module."""


def moved(name: str) -> ModuleType:
    """The module that had this name; warns at its first use."""
    old, new = f"unmask.{name}", f"unmask.{NEW_NAMES[name]}"
    if old not in sys.modules:
        warnings.warn(f"{old} is now {new}; the old name goes in the next version", FutureWarning, 3)
        found = import_module(new)
        sys.modules[old] = _joined(old, found, ALSO[name]) if name in ALSO else found
    return sys.modules[old]


def _joined(old: str, first: ModuleType, second: str) -> ModuleType:
    """The names of two modules in one."""
    both = ModuleType(old)
    vars(both).update(vars(import_module(f"unmask.{second}")) | vars(first))
    return both


class _Finder(MetaPathFinder, Loader):
    """Finds the old names where they are imported as modules."""

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """A spec for an old name, None for all others."""
        package, _, old = name.partition(".")
        return spec_from_loader(name, self) if package == "unmask" and old in NEW_NAMES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module under its new name."""
        module = moved(spec.name.partition(".")[2])
        self.own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing but to leave the module its own spec: it is there already."""
        module.__spec__ = self.own


def watch() -> None:
    """Makes the old names importable; done once, when `unmask` is imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
