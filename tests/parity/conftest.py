"""Comparisons with PyTorch and transformers; ``import peers`` works from every test in this folder."""

import importlib.util

# The default test run must pass on a machine that has neither; there this folder holds nothing to collect.
if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
    collect_ignore_glob = ["*.py"]
