"""The studies there are. A new one is a module with a ``STUDY`` and its name in this list."""

import importlib

from minids.errors import refuse
from minids.lab.studies.study import Study
from minids.words import did_you_mean

STUDIES = (
    *("balance", "load", "router", "attention", "mtp", "segmentation", "fp8", "race", "long-context"),
    *("fim", "token-boundary", "batch-ramp", "average", "qk-clip", "fp8-scaling", "grpo", "distillation"),
)
"""Names as on the command line; the module is the same with underscores."""


def study(name: str) -> Study:
    """The study called ``name``."""
    if name not in STUDIES:
        raise refuse("study", name, f"no study of that name; {did_you_mean(name, STUDIES)}there are {', '.join(STUDIES)}")
    return importlib.import_module(f"minids.lab.studies.{name.replace('-', '_')}").STUDY
