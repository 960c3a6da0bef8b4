"""minids experts: redundant experts for a run's own load."""

import json
from dataclasses import dataclass
from typing import Literal

from minids.errors import refuse
from minids.terminal import fit, say


@dataclass(frozen=True)
class Options:
    """Place experts on GPUs by the load that a run recorded, with copies of the busy ones (EPLB), judged on later steps."""

    run: str
    """Folder of a run that was trained with --trace-every."""
    gpus: int = 4
    """GPUs that share the experts of a layer."""
    nodes: int = 1
    """Nodes that the GPUs stand in, as many in each."""
    redundant: int | None = None
    """Places beyond one for each expert; as many as there are GPUs, or what fills their last places, if it is not given."""
    policy: Literal["auto", "hierarchical", "global"] = "auto"
    """Groups of experts stay within a node, or every copy goes anywhere; auto: the first where nodes divide the groups."""
    map: bool = False
    """Print which experts each GPU holds, and its rows before and after."""
    json: bool = False
    """Print JSON, the whole map among it."""


def run(options: Options, given: set[str]) -> None:
    from minids.lab.analysis.redundant import formatted, planned, recorded

    if options.map and options.json:
        raise refuse("map", True, "is in the JSON anyway; leave one out")
    policy = None if options.policy == "auto" else options.policy
    found = planned(recorded(options.run), options.gpus, options.nodes, options.redundant, policy)
    if not options.json:
        say(fit(formatted(found, options.map)))
        return
    layers = [
        {name: value.tolist() if hasattr(value, "tolist") else value for name, value in layer._asdict().items()}
        for layer in found.layers
    ]
    say(json.dumps({**found._asdict(), "layers": layers}, indent=2))
