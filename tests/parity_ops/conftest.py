"""Operations beside PyTorch autograd; where PyTorch is not installed this folder holds nothing to collect."""

import importlib.util

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["*.py"]
