"""How a run is parted among processes."""

from __future__ import annotations

from dataclasses import dataclass

from minids.config.checks import Replaceable, check_fields
from minids.errors import refuse


@dataclass(frozen=True)
class ParallelConfig(Replaceable):
    """Several processes, started together: mpiexec -n 4 minids train … (needs the extra parallel; docs/parallel.md)."""

    data_parallel: int = 0
    """Processes, or groups of expert_parallel processes, that each hold the whole model and read their own sequences of every
    batch; 0 for as many as there are."""
    expert_parallel: int = 1
    """Processes that hold the routed experts between them and send each other tokens (V3: 64)."""
    ranks_per_node: int = 0
    """With expert_parallel: neighbouring processes that count as one node, to which a token is sent once (V3: 8); 0 for 1."""
    zero_1: bool = True
    """Each process keeps the optimizer's moments of its own share of the weights, updates that share, and gathers the rest
    (ZeRO-1, as V3: section 3.2). The same bits as without."""
    low_precision_exchange: bool = False
    """With expert_parallel: tokens are sent to their experts in FP8 and come back in BF16 (V3, section 3.3.3)."""

    def __post_init__(self) -> None:
        check_fields(self, at_least={"data_parallel": 0, "ranks_per_node": 0})
        for name in ("ranks_per_node", "low_precision_exchange"):
            if getattr(self, name) and self.expert_parallel == 1:
                raise refuse(name, getattr(self, name), "concerns tokens that travel to experts; say expert_parallel too")
