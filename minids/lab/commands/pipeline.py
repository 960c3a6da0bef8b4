"""minids pipeline: a pipeline schedule on a timeline, simulated or executed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from minids.errors import refuse
from minids.terminal import fit, say

SEVERAL_PROCESSES = True
OF_EXECUTION = ("preset", "sequences", "length", "record")
OF_SIMULATION = ("forward", "backward", "weight", "overlapped")


@dataclass(frozen=True)
class Options:
    """Simulate or execute how a pipeline of devices shares the work of training: timeline, bubble, activations held."""

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
    execute: bool = False
    """Do it: one device per process under mpiexec -n DEVICES, or all devices in this process, by turns."""
    preset: str = "tiny"
    """With --execute: the model, with random weights and tokens."""
    sequences: int = 2
    """With --execute: sequences of a micro-batch."""
    length: int = 128
    """With --execute: tokens of a sequence."""
    record: str = ""
    """With --execute: JSON file to write the recording to."""
    measured: str = ""
    """Show a recording, beside the simulation of the same order."""
    png: str = ""
    """With --execute or --measured: picture to write."""
    json: bool = False
    """Print JSON, every chunk's start and end among it."""


def run(options: Options, given: set[str]) -> None:
    from minids.lab.analysis.pipeline import Times, closed_form, simulate
    from minids.lab.analysis.pipeline_measured import compared
    from minids.lab.analysis.pipeline_table import format_measured, format_timeline
    from minids.parallel.timeline import Recording

    o = options
    _check(o, given)
    if o.execute or o.measured:
        recording = _executed(o) if o.execute else Recording.load(o.measured)
        if o.png:
            from minids.lab.figures.pipelines import write_measured

            write_measured(recording, Path(o.png))
        if o.json:
            found = {name: _as_dict(timeline) for name, timeline in compared(recording)._asdict().items()}
            say(json.dumps(found, indent=2))
        else:
            say(fit(format_measured(recording)))
            for what, path in (("Recording", o.record), ("Picture", o.png)):
                if path:
                    say(f"{what}: {path}")
        return
    times = Times(o.forward, o.backward, o.weight, o.overlapped)
    timeline = simulate(o.schedule, o.stages, o.microbatches, times)
    if not o.json:
        say(fit(format_timeline(timeline)))
        return
    say(json.dumps(_as_dict(timeline) | {"closed_form": closed_form(o.schedule, o.stages, times)._asdict()}, indent=2))


def _as_dict(timeline) -> dict:
    found = {**timeline._asdict(), "times": timeline.times._asdict(), "slots": [slot._asdict() for slot in timeline.slots]}
    return found | {"bubble": timeline.bubble, "bubble_share": timeline.bubble_share}


def _check(o: Options, given: set[str]) -> None:
    """What belongs to another way of using the command is refused."""
    from minids.parallel.mpi import world

    if o.execute and o.measured:
        raise refuse("measured", o.measured, "is a recording that is there, and --execute makes one; leave one out")
    for name in sorted(given.intersection(OF_EXECUTION)):
        if not o.execute:
            raise refuse(name, getattr(o, name), "concerns --execute; say it too")
    for name in sorted(given.intersection(OF_SIMULATION)):
        if o.execute or o.measured:
            raise refuse(name, getattr(o, name), "concerns the simulation; what is executed takes the time it takes")
    for name in sorted(given.intersection(("schedule", "stages", "microbatches"))):
        if o.measured:
            raise refuse(name, getattr(o, name), "is in the recording; leave it out")
    if o.png and not (o.execute or o.measured):
        raise refuse("png", o.png, "is of --execute or --measured; minids figures 21 draws the simulation")
    if world().size > 1 and not o.execute:
        raise refuse("processes", world().size, "are for --execute")
    for name in ("record", "png"):
        path = getattr(o, name)
        if path and (Path(path).is_dir() or not Path(path).absolute().parent.is_dir()):
            raise refuse(name, path, "must be a file in a folder that is there")


def _executed(o: Options):
    """A step that warms up, and one that is recorded."""
    import numpy as np

    from minids.arguments import whole
    from minids.config import ModelConfig
    from minids.model import DeepSeekV3
    from minids.parallel.mpi import world
    from minids.parallel.pipeline import Apart, Together
    from minids.parallel.pipeline_orders import check

    check(o.schedule, o.stages, o.microbatches)
    config = ModelConfig.preset(o.preset)
    whole("sequences", o.sequences, least=1)
    whole("length", o.length, least=config.num_nextn_predict_layers + 1, most=config.max_position_embeddings)
    model = DeepSeekV3(config, seed=0)
    text = np.random.default_rng(0).integers(0, config.vocab_size, (o.microbatches, o.sequences, o.length + 1))
    ranks = world()
    pipeline = Apart(model, o.schedule, o.stages, ranks) if ranks.size > 1 else Together(model, o.schedule, o.stages)
    for _ in range(2):
        _, recording = pipeline.forward_backward(text[..., :-1], text[..., 1:])
    recording = recording._replace(model=f"{o.preset}: {recording.model}")
    if o.record and ranks.rank == 0:
        recording.save(Path(o.record))
    return recording
