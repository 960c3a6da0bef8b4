"""What looks at the model: arithmetic, studies, figures, speed, mistakes. Nothing outside this folder needs it to work.

analysis   arithmetic on configurations and traces: parameters, cache, FLOPs, cost, routing, schedules, claims
mistakes   the mistakes that implementations repeat, to be switched on and looked at
studies    the paper's ablations at small scale: arms, seeds, results as data
bench      speed, side by side with the peers
figures    one drawing function per figure, in one style
page       one HTML file in which a model computes
notebook   what the notebooks share
lessons    what single notebooks measure, and the checks of their exercises
plots      what they draw
"""

import importlib

_ROOMS = ("analysis", "bench", "figures", "mistakes", "notebook", "page", "studies")


def __getattr__(name: str):
    """``minids.lab.figures`` and the like are imported when they are first asked for."""
    if name in _ROOMS:
        return importlib.import_module(f"minids.lab.{name}")
    raise AttributeError(f"module 'minids.lab' has no attribute {name!r}; it has {', '.join(_ROOMS)}")
