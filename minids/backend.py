"""Which code serves an operation. Layers say ``op.rmsnorm.forward(...)`` and get the active backend's module."""

from __future__ import annotations

import importlib


class _Operations:
    """``op.NAME`` is the module that serves operation NAME."""

    def __getattr__(self, name: str):
        return importlib.import_module(f"minids.ops.{name}")


op = _Operations()
