"""The studies there are. A new one is a module with a ``STUDY`` and its name in this list."""

from __future__ import annotations

import difflib
import importlib

from minids.errors import refuse
from minids.lab.studies.study import Study

STUDIES = ("balance", "load", "router", "attention", "mtp", "segmentation", "fp8", "race", "long-context")
"""Names as on the command line; the module is the same with underscores."""


def study(name: str) -> Study:
    """The study called ``name``."""
    if name not in STUDIES:
        close = difflib.get_close_matches(name, STUDIES, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise refuse("study", name, f"no study of that name; {hint}there are {', '.join(STUDIES)}")
    return importlib.import_module(f"minids.lab.studies.{name.replace('-', '_')}").STUDY
