"""What travels between nodes is what the report's arithmetic counts, to the byte."""

import numpy as np
import pytest
from several_ranks import on_ranks
from small_run import MODEL

from minids.config import ParallelConfig
from minids.lab.analysis.traffic import meter
from minids.model import DeepSeekV3
from minids.parallel.communicator import Alone
from minids.parallel.exchange import ExpertExchange
from minids.parallel.group import process_group
from minids.parallel.mpi import world

CONFIG = MODEL.replace(vocab_size=32, bos_token_id=None, eos_token_id=None, hidden_size=160)  # two scales in a row
RANKS = 4


def passed(per_node: int, low_precision: bool, sequences: list[int]) -> dict:
    """A forward and a backward pass of the model → what each layer chose, and bytes by what they were for and by rank."""
    group = process_group(ParallelConfig(expert_parallel=RANKS, ranks_per_node=per_node, low_precision_exchange=low_precision))
    model, rank = group.parted(DeepSeekV3(CONFIG, seed=1)), world().rank
    rng, chosen = np.random.default_rng(rank), []
    for layer in model.moe_layers:
        layer.on_routing = lambda routing, _: chosen.append(routing.chosen.tolist())
    tokens, targets = rng.integers(0, 32, (2, sequences[rank], 10))
    phases = {}
    with group.ranks.recording() as exchanges:
        _, saved = model.forward(tokens, targets)
        phases["forward"] = list(exchanges)
        model.backward(saved)
        phases["backward"] = exchanges[len(phases["forward"]) :]
    sent: dict[str, dict[str, list[int]]] = {}
    for phase, its in phases.items():
        sent[phase] = {}
        for exchange in its:
            before = np.array(sent[phase].get(exchange.what or exchange.verb, [0] * RANKS))
            sent[phase][exchange.what or exchange.verb] = (before + exchange.sent).tolist()
    return {"chosen": chosen, "sent": sent}


def between(found: list[dict], phase: str, what: str, per_node: int, same_node: bool) -> int:
    """Bytes that left a rank, for another node or for another rank of its own."""
    total = 0
    for rank, each in enumerate(found):
        for other, sent in enumerate(each["sent"][phase].get(what, [0] * RANKS)):
            if other != rank and (rank // per_node == other // per_node) == same_node:
                total += sent
    return total


@pytest.mark.parallel
@pytest.mark.parametrize("per_node", [1, 2])
def test_bytes_between_nodes_are_those_of_the_arithmetic(per_node):
    nodes, d = RANKS // per_node, CONFIG.hidden_size
    found = on_ranks(RANKS, passed, per_node, True, [1, 2, 1, 3])
    dispatch = combine = 0.0
    for layer in range(len(found[0]["chosen"])):
        chosen = [np.array(each["chosen"][layer]) for each in found]
        home = np.repeat(np.arange(RANKS) // per_node, [len(each) for each in chosen])
        traffic = meter(np.concatenate(chosen), CONFIG.n_routed_experts, nodes, d, home)
        dispatch += traffic.dispatch_bytes * len(home)
        combine += traffic.combine_bytes * len(home)
    for phase in ("forward", "backward"):  # gradients go the same ways in the same precision
        assert between(found, phase, "across dispatch", per_node, False) == round(dispatch), phase
        assert between(found, phase, "across combine", per_node, False) == round(combine), phase
        assert between(found, phase, "across dispatch", per_node, True) == 0, "a token crossed between nodes to its own"


@pytest.mark.parallel
def test_inside_a_node_a_token_goes_once_to_each_rank_that_has_an_expert_for_it():
    per_node, d = 2, CONFIG.hidden_size
    found = on_ranks(RANKS, passed, per_node, False, [1, 2, 1, 3])
    each, copies, crossing = CONFIG.n_routed_experts // RANKS, 0, 0
    for rank, its in enumerate(found):
        for chosen in its["chosen"]:
            for token in chosen:
                ranks = {e // each for e in token}
                nodes = {r // per_node for r in ranks}
                lands = {node: node * per_node + rank % per_node for node in nodes}  # at the same place in the node
                crossing += len(nodes - {rank // per_node})
                copies += sum(r != lands[r // per_node] for r in ranks)
    for phase in ("forward", "backward"):
        for what in ("dispatch", "combine"):
            assert between(found, phase, f"inside {what}", per_node, True) == 4 * d * copies
            assert between(found, phase, f"inside {what}", per_node, False) == 0
            assert between(found, phase, f"across {what}", per_node, False) == 4 * d * crossing


@pytest.mark.parallel
def test_low_precision_comes_close(tmp_path):
    exact, low = (on_ranks(RANKS, outputs, precise) for precise in (False, True))
    for a, b in zip(exact, low, strict=True):
        off = abs(np.array(a) - np.array(b)).max() / abs(np.array(a)).max()
        assert 1e-4 < off < 0.1, f"{off:.2g}: eight bits out and sixteen back are neither nothing nor everything"


def outputs(low_precision: bool) -> list:
    group = process_group(ParallelConfig(expert_parallel=RANKS, ranks_per_node=2, low_precision_exchange=low_precision))
    model = group.parted(DeepSeekV3(CONFIG.replace(initializer_range=0.1), seed=1))
    layer = model.moe_layers[0]
    x = np.random.default_rng(world().rank).standard_normal((1, 6, CONFIG.hidden_size), dtype=np.float32)
    y, saved = layer.forward(x)
    return [y.tolist(), layer.backward(y, saved).tolist()]


def test_an_exchange_with_nobody_is_the_layer_itself():
    """One rank that holds all experts: the same outputs and gradients, by the other path."""
    plain, exchanged = (DeepSeekV3(CONFIG, seed=1, dtype=np.float64) for _ in range(2))
    for layer in exchanged.moe_layers:
        layer.exchange = ExpertExchange(Alone(), [0, CONFIG.n_routed_experts])
    tokens, targets = np.random.default_rng(0).integers(0, 32, (2, 2, 10))
    for model in (plain, exchanged):
        model.forward_backward(tokens, targets)
    off = abs(plain.parameters.grads - exchanged.parameters.grads).max()
    assert off <= 1e-14 * max(abs(plain.parameters.grads).max(), 1), f"gradients differ by {off:.2g}"
