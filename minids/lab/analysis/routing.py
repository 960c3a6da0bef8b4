"""How evenly experts are loaded, what they specialise on, and how many nodes a token reaches: statistics of choices.

Loads are counts of tokens; r_i = load_i / mean load is 1 for every expert when the load is even. MaxVio = max_i r_i − 1
(``minids.training.metrics.max_violation``). Everything here takes plain arrays, or a ``RoutingTrace``.
"""

from typing import NamedTuple

import numpy as np

from minids.errors import refuse
from minids.lab.analysis.routing_trace import RoutingTrace
from minids.layers.parameters import Array
from minids.training.metrics import max_violation


def relative_load(counts: Array) -> Array:
    """counts (…, E) → r (…, E), load over mean load; DeepSeek-V3 Figure 9 shows it per layer and domain."""
    counts = np.asarray(counts, dtype=np.float64)
    return counts / counts.mean(axis=-1, keepdims=True)


def load_entropy(counts: Array) -> Array:
    """counts (…, E) → entropy of the load over its largest value ln E, (…): 1 is even, 0 one expert for everything."""
    share = np.asarray(counts, dtype=np.float64)
    share = share / share.sum(axis=-1, keepdims=True)
    terms = np.where(share > 0, share * np.log(np.where(share > 0, share, 1.0)), 0.0)
    return -terms.sum(axis=-1) / np.log(share.shape[-1])


def specialisation(counts: Array) -> Array:
    """counts (D, …, E) of D domains → I(domain; expert) in bits, (…): what the choice of an expert tells about the domain.

    Every domain counts the same, however much text it has. 0: each domain loads the experts alike; log₂ D: no expert is
    shared by two domains.
    """
    counts = np.asarray(counts, dtype=np.float64)
    joint = counts / counts.sum(axis=-1, keepdims=True) / len(counts)  # p(domain, expert)
    independent = joint.sum(axis=0) / len(counts)  # p(domain) p(expert)
    ratio = np.where(joint > 0, joint / np.where(independent > 0, independent, 1.0), 1.0)
    return (joint * np.log2(ratio)).sum(axis=(0, -1))


class PermutationTest(NamedTuple):
    """Whether a statistic is larger than chance would make it."""

    statistic: float
    chance: float  # its mean when the labels are shuffled: never 0 for a finite sample
    p_value: float  # share of shufflings, the true labelling among them, with a statistic at least as large


def specialisation_test(counts: Array, domain: Array, permutations: int = 999, seed: int = 0) -> PermutationTest:
    """Do domains use different experts, or is it the chance of which sequences were read?

    counts (S, layers, E): loads from each of S sequences; domain (S,) int labels. The statistic is ``specialisation``, mean
    over layers. *Sequences* are shuffled: the tokens of one resemble each other, so they are not independent.
    """
    counts, domain = np.asarray(counts, dtype=np.float64), np.asarray(domain)
    labels = np.unique(domain)
    member = (domain == labels[:, None]).astype(np.float64)  # (D, S)
    flat = counts.reshape(len(counts), -1)  # (S, layers · E)

    def statistic(member: Array) -> float:
        return float(np.mean(specialisation((member @ flat).reshape(len(labels), *counts.shape[1:]))))

    rng = np.random.default_rng(seed)
    found = statistic(member)
    shuffled = np.array([statistic(member[:, rng.permutation(len(domain))]) for _ in range(permutations)])
    reached = int(np.sum(shuffled >= found - 1e-12))  # shufflings that change nothing are as large, but for rounding
    return PermutationTest(found, float(shuffled.mean()), (1 + reached) / (1 + permutations))


def nodes_touched(chosen: Array, experts: int, nodes: int) -> Array:
    """chosen (…, K), E experts dealt to nodes in blocks of neighbours → nodes each token is sent to, (…) int."""
    if nodes < 1 or experts % nodes:
        raise refuse("nodes", nodes, f"must divide {experts} experts")
    node = np.sort(np.asarray(chosen) // (experts // nodes), axis=-1)
    return 1 + np.sum(node[..., 1:] != node[..., :-1], axis=-1)


def dropped(trace: RoutingTrace) -> int:
    """Choices that no expert served: always 0 here, where no expert has a capacity. Counted, not assumed."""
    served = 0
    for layer in trace.layers:
        distinct = np.sort(layer.chosen, axis=-1)
        same = np.sum(distinct[..., 1:] == distinct[..., :-1])  # an expert chosen twice would serve the token once
        served += int(np.sum((distinct >= 0) & (distinct < trace.experts)) - same)
    return sum(layer.chosen.size for layer in trace.layers) - served


def domain_counts(trace: RoutingTrace) -> Array:
    """Loads by domain, (D, layers, E) int."""
    return np.array([trace.counts(trace.domain == index) for index in range(len(trace.domains))])


class LayerStatistics(NamedTuple):
    """One MoE layer over all tokens of a trace."""

    name: str
    max_violation: float
    entropy: float  # of the load, 1 is even
    nodes: float  # that a token is sent to, on average
    specialisation: float | None  # I(domain; expert) in bits; None without domains


def statistics(trace: RoutingTrace) -> list[LayerStatistics]:
    """The main numbers of each layer."""
    counts, names = trace.counts(), [layer.name for layer in trace.layers]
    uneven, entropy = max_violation(counts).tolist(), load_entropy(counts).tolist()  # (layers,) each
    nodes = [float(nodes_touched(layer.chosen, trace.experts, trace.groups).mean()) for layer in trace.layers]
    special = specialisation(domain_counts(trace)).tolist() if len(trace.domains) > 1 else [None] * len(counts)
    return list(map(LayerStatistics, names, uneven, entropy, nodes, special))
