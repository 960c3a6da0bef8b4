"""Peak memory of a training step: each contender in a fresh process of its own, which makes three steps and reports.

What counts is what training adds: the most memory that was resident at once, less what was there when all libraries were loaded
and no model made.
"""

import importlib
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from minids.terminal import say

STEPS = 3
STATUS = Path("/proc/self/status")  # Linux alone tells a process how much it had at most, and now


def peak_megabytes(size: str, contender: str, threads: int) -> float | None:
    """MB of 10⁶ bytes that ``contender`` needs to train ``size``; None on a system that does not tell."""
    if not STATUS.exists():
        return None
    code = f"from minids.lab.bench.memory import report; report({size!r}, {contender!r}, {threads})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def report(size: str, contender: str, threads: int) -> None:
    """In the process that is measured: make some steps, print the difference in MB."""
    train = importlib.import_module("minids.lab.bench.train")
    peers = train.peers
    if contender in train.BACKENDS:
        importlib.import_module("minids.kernels" if contender == "numba" else "minids.ops")
    else:
        importlib.import_module("torch._dynamo" if contender == peers.COMPILED else "torch")
        importlib.import_module("transformers.models.deepseek_v3.modeling_deepseek_v3")
    before = _resident("VmRSS")
    with ExitStack() as stack:
        step = train.contender(train.SIZES[size], threads, contender, stack)
        for _ in range(STEPS):
            step()
    say((_resident("VmHWM") - before) / 1e6)


def _resident(field: str) -> int:
    """Bytes: VmRSS now, VmHWM at most so far."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024
