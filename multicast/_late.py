"""Modules that few programs need, imported by those that do.

Owns that alone: `import multicast` is to cost little over `import socket`. Must not be used for what is needed anyway.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

_package = sys.modules[__name__.rpartition(".")[0]]


def late(name: str) -> ModuleType:
    """Return a module of this package."""
    found: ModuleType | None = getattr(_package, name, None)
    if found is None:
        import importlib

        found = importlib.import_module(f"{_package.__name__}.{name}")
    return found
