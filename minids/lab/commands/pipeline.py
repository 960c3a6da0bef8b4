"""minids pipeline: a pipeline schedule on a timeline."""

import json
from dataclasses import dataclass
from typing import Literal

from minids.terminal import fit, say


@dataclass(frozen=True)
class Options:
    """Simulate how a pipeline of devices shares the work of training: the timeline, the bubble, the activations held."""

    schedule: Literal["1F1B", "ZB1P", "DualPipe", "DualPipeV"] = "DualPipe"
    """One forward one backward, zero bubble, or DeepSeek's own, bidirectional."""
    stages: int = 8
    """Stages that the model is cut into."""
    microbatches: int = 20
    """Micro-batches per step; DualPipe has half of them enter at either end."""
    forward: float = 1.0
    """F: time of a forward chunk, in any unit."""
    backward: float = 2.0
    """B: time of a whole backward chunk."""
    weight: float = 1.0
    """W: the part of it that gives the weights' gradients."""
    overlapped: float = 3.0
    """F&B: time of a forward and a backward chunk that overlap."""
    json: bool = False
    """Print JSON, every chunk's start and end among it."""


def run(options: Options, given: set[str]) -> None:
    from minids.lab.analysis.pipeline import Times, closed_form, simulate
    from minids.lab.analysis.pipeline_table import format_timeline

    times = Times(options.forward, options.backward, options.weight, options.overlapped)
    timeline = simulate(options.schedule, options.stages, options.microbatches, times)
    if not options.json:
        say(fit(format_timeline(timeline)))
        return
    found = {**timeline._asdict(), "times": times._asdict(), "slots": [slot._asdict() for slot in timeline.slots]}
    found["bubble"], found["bubble_share"] = timeline.bubble, timeline.bubble_share
    found["closed_form"] = closed_form(options.schedule, options.stages, times)._asdict()
    say(json.dumps(found, indent=2))
