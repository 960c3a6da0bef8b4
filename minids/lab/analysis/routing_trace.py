"""A record of what routers did: for every token and layer the experts it chose and their gates, and the biases at that step.

Every MoE layer calls ``on_routing`` after each forward pass where that is set; while nobody records it is None, and asking
that is all it costs. ``record`` observes a training run with ``trace_every = n`` and writes every n-th step to
``RUN/routing/step-000100.npz``; ``trace`` records what a model does with a text. Statistics are in ``routing``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from minids.errors import MinidsError
from minids.files import write
from minids.layers.parameters import Array
from minids.model import DeepSeekV3
from minids.model_checks import check_tokens
from minids.ops.router import Routing
from minids.training.process_group import ProcessGroup
from minids.training.run import Run


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """One MoE layer. MTP layers see fewer positions: T' = T − depth."""

    name: str  # of the layer, as in a checkpoint: model.layers.1.mlp
    chosen: Array  # (B, T', K) int: the experts of each token, best first
    gates: Array  # (B, T', K) float32: their weights, without the shared expert's, which is 1
    bias: Array | None  # (E,) the balancing bias that took part in the choice; None for routers without one


@dataclass(frozen=True, eq=False)
class RoutingTrace:
    """What one batch did in every MoE layer, MTP modules' layers last."""

    layers: tuple[LayerTrace, ...]
    tokens: Array  # (B, T) int: what was read
    experts: int  # E: routed experts per layer
    groups: int  # groups (nodes) they are divided into, neighbours together
    step: int = 0  # optimizer steps finished before
    domains: tuple[str, ...] = ()  # names of the domains
    domain: Array | None = None  # (B, T) int: the domain of each token, an index of ``domains``; None where the text has none

    def counts(self, where: Array | None = None) -> Array:
        """Tokens that each expert got, (layers, E) int; only those for which ``where`` (B, T) is true, if it is given."""
        rows = []
        for layer in self.layers:
            chosen = layer.chosen if where is None else layer.chosen[where[:, : layer.chosen.shape[1]]]
            rows.append(np.bincount(chosen.reshape(-1), minlength=self.experts))
        return np.array(rows).reshape(len(rows), self.experts)

    def counts_by_sequence(self) -> Array:
        """(B, layers, E) int: tokens that each expert got from each sequence."""
        out = np.zeros((len(self.tokens), len(self.layers), self.experts), dtype=np.int64)
        for index, layer in enumerate(self.layers):
            for sequence, chosen in enumerate(layer.chosen):
                out[sequence, index] = np.bincount(chosen.reshape(-1), minlength=self.experts)
        return out

    def save(self, path: Path) -> None:
        """Write a ``.npz`` file; gates are kept to three digits (float16)."""
        small = np.uint8 if self.experts <= 256 else np.uint16
        arrays = {
            "tokens": self.tokens.astype(np.int32),
            "names": np.array([layer.name for layer in self.layers], dtype=np.str_),
            "numbers": np.array([self.experts, self.groups, self.step]),
            "domains": np.array(self.domains, dtype=np.str_),
        }
        if self.domain is not None:
            arrays["domain"] = self.domain.astype(np.uint16)
        for i, layer in enumerate(self.layers):
            arrays[f"chosen.{i}"] = layer.chosen.astype(small)
            arrays[f"gates.{i}"] = layer.gates.astype(np.float16)
            if layer.bias is not None:
                arrays[f"bias.{i}"] = layer.bias
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, lambda file: np.savez_compressed(file, **arrays))

    @classmethod
    def load(cls, path: str | Path) -> RoutingTrace:
        """Read what ``save`` wrote. Raises ``MinidsError`` for any other file."""
        try:
            with np.load(path, allow_pickle=False) as found:
                held = {name: found[name] for name in found.files}
            experts, groups, step = (int(n) for n in held["numbers"])
            layers = []
            for i, name in enumerate(held["names"]):
                chosen, gates = held[f"chosen.{i}"].astype(np.int64), held[f"gates.{i}"].astype(np.float32)
                layers.append(LayerTrace(str(name), chosen, gates, held.get(f"bias.{i}")))
            domains = tuple(str(name) for name in held["domains"])
            return cls(tuple(layers), held["tokens"], experts, groups, step, domains, held.get("domain"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise MinidsError(f"{path}: is no routing trace ({error})") from None


class Recorder:
    """``with Recorder(models) as recorder:`` keeps what the models route; then ``recorder.trace(tokens)``.

    ``models`` share weights and the sequences of each batch, as those of ``Workers`` do; each may work in a thread of its own.
    Several batches, each split among all models, come one behind another.
    """

    def __init__(self, models: Sequence[DeepSeekV3]):
        self.models = models
        self._kept: list[list[list[tuple[Array, Array]]]] = [[[] for _ in m.moe_layers] for m in models]
        self._biases = [None if layer.bias is None else layer.bias.copy() for layer in models[0].moe_layers]

    def __enter__(self) -> Recorder:
        for model, kept in zip(self.models, self._kept, strict=True):
            for layer, calls in zip(model.moe_layers, kept, strict=True):
                layer.on_routing = partial(self._keep, calls)
        return self

    def __exit__(self, *_):
        for model in self.models:
            for layer in model.moe_layers:
                layer.on_routing = None

    @staticmethod
    def _keep(calls: list, routing: Routing, shape: tuple[int, int]) -> None:
        """Copies, since a backend may use its arrays again."""
        calls.append(tuple(np.array(a).reshape(*shape, -1) for a in (routing.chosen, routing.gates)))

    def trace(
        self,
        tokens: Array,
        step: int = 0,
        domains: tuple[str, ...] = (),
        domain: Array | None = None,
        group: ProcessGroup | None = None,
    ) -> RoutingTrace:
        """What was recorded, as a trace. ``tokens`` (B, T) and ``domain`` (B, T) are those of all batches, in order. The
        processes of ``group`` have recorded some sequences of each batch, and make the same trace."""
        layers, group = [], group or ProcessGroup()
        for i, layer in enumerate(self.models[0].moe_layers):
            per_model = [kept[i] for kept in self._kept if kept[i]]  # [model][batch]
            batches = [list(batch) for batch in zip(*per_model, strict=True)]
            if joined := group.joined_batches(batches):  # nothing, for the layer of an MTP module that rests
                layers.append(LayerTrace(layer.name, *joined, self._biases[i]))
        config = self.models[0].config
        return RoutingTrace(tuple(layers), tokens, config.n_routed_experts, config.n_group, step, domains, domain)


def trace(
    model: DeepSeekV3, tokens: Array, domains: tuple[str, ...] = (), domain: Array | None = None, batch_size: int = 16
) -> RoutingTrace:
    """What the main model does with tokens (B, T); ``domain`` (B, T) indexes ``domains``. Nothing of the model changes."""
    tokens = check_tokens(model.config, tokens)
    with Recorder([model]) as recorder:
        for start in range(0, len(tokens), batch_size):
            model.logits(tokens[start : start + batch_size])
    return recorder.trace(tokens, 0, domains, domain)


@contextmanager
def record(run: Run) -> Iterator[None]:
    """An observer of a training run: puts the routing of every ``trace_every``-th step into the run's folder."""
    step, every = run.step, run.train.trace_every
    if not every or step % every:
        yield
        return
    with Recorder(run.workers.models) as recorder:
        yield
    tokens, domain = (np.concatenate([batch[i] for batch in run.batches.kept]) for i in (0, 2))  # micro-batches, in order
    found = recorder.trace(tokens, step, run.text.training.domains, domain, run.group)
    if run.group.first:
        found.save(path_of(run.folder.path, step))


def path_of(run: Path, step: int) -> Path:
    """The file of a run's folder that holds the trace of step ``step``."""
    return run / "routing" / f"step-{step:06d}.npz"


def traces(run: str | Path) -> list[Path]:
    """The traces of a run's folder, in the order of steps."""
    return sorted((Path(run) / "routing").glob("step-*.npz"))
