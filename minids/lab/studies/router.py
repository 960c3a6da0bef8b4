"""The router's other settings: scaling factor, scores, shared expert, and the limit on nodes.

The scaling factor ρ of V3 (2.5) belongs to its size; it is swept here. V2 has softmax scores, V3 sigmoids. The limit M = 2 of 4
groups saves traffic between nodes: DeepSeek-V2 (section 2.2.2) finds M ≥ 3 of 8 about as good as no limit. In the place of the
shared expert there is one routed expert more, 5 of 17; they make no equal groups, so this arm is compared with the one without
a limit.
"""

import numpy as np

from minids.lab.analysis.routing_trace import trace
from minids.lab.analysis.traffic import meter
from minids.lab.studies.base import BALANCED, COMMON, configs, trained
from minids.lab.studies.compare import above, below
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.lab.studies.training import text, validation_batches

SCALES = (1.0, 4.0)
LIMITS = (1, 4)
FREE, NONE_SHARED = "4 of 4 nodes", "none shared, 5 of 17, no nodes"
ARMS = {
    "base: scale 2.5, 2 of 4 nodes": {},
    **{f"scale {scale:g}": dict(routed_scaling_factor=scale) for scale in SCALES},
    **{f"{limit} of 4 nodes": dict(topk_group=limit) for limit in LIMITS},
    NONE_SHARED: dict(n_shared_experts=0, n_routed_experts=17, num_experts_per_tok=5, n_group=1, topk_group=1),
    "softmax scores": dict(scoring_func="softmax"),
}


def run(settings: dict, job: Job) -> Outcome:
    model, numbers, _, curves = trained(settings, job)
    _, train_config = configs(settings, job)
    c = model.config
    batches = validation_batches(text(job.data), train_config).values()
    tokens = np.concatenate([tokens for domain in batches for tokens, _ in domain])
    each = [meter(layer.chosen, c.n_routed_experts, c.n_group, c.hidden_size) for layer in trace(model, tokens).layers]
    if c.n_group > 1:  # else there are no nodes to count
        numbers["nodes"] = float(np.mean([traffic.nodes for traffic in each]))
        numbers["all_to_all_bytes"] = float(np.mean([traffic.bytes for traffic in each]))  # per token and layer
    return Outcome(numbers, curves)


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    base, *_ = ARMS
    loss = {name: arm["loss"] for name, arm in arms.items()}
    best = min((f"scale {scale:g}" for scale in SCALES), key=lambda name: loss[name].mean)
    saved = 1 - arms[base]["all_to_all_bytes"].mean / arms[FREE]["all_to_all_bytes"].mean
    one = "1 of 4 nodes"
    return [
        below("V3's scaling factor is not above the best other one tried", loss[base], loss[best], f"{best}: "),
        below("two nodes of four are as good as no limit", loss[base], loss[FREE], suffix=f"; traffic {saved:.0%} lower"),
        above("one node of four is worse", loss[one], loss[FREE]),
        below("sigmoid scores are not above softmax scores", loss[base], loss["softmax scores"]),
        above("a shared expert is better than one routed expert more", loss[NONE_SHARED], loss[FREE]),
    ]


STUDY = Study(
    question="which settings of V3's router carry over to this size, and what does the limit on nodes save?",
    arms={name: {"model": {**BALANCED, **model}} for name, model in ARMS.items()},
    run=run,
    shown=("loss", "max_vio", "nodes", "all_to_all_bytes", "parameters"),
    common=COMMON,
    findings=findings,
    seeds=(0, 1, 2, 3, 4),
)
