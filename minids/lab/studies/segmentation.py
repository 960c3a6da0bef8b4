"""Many small experts against few large ones, and a shared expert, each with the same parameters in all and per token.

DeepSeekMoE (Dai et al. 2024) section 4: at equal size, isolating a shared expert helps, and cutting every expert into 2 and
into 4 helps again (figure 3). Once trained, the shared expert cannot be replaced: without it and with one routed expert more,
the loss rises from 1.808 to 2.414 (section 4.5).
"""

from __future__ import annotations

from minids.lab.studies.base import BALANCED, COMMON, configs, differs, not_above, trained
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.lab.studies.training import text, validate
from minids.model import DeepSeekV3

# One "unit" is an expert of width 64; 12 units in all, 3 of them at work for a token. No groups: they would limit each arm
# in another way.
ARMS = {
    "3 of 12": dict(n_routed_experts=12, num_experts_per_tok=3, n_shared_experts=0, moe_intermediate_size=64),
    "1 shared + 2 of 11": dict(n_routed_experts=11, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=64),
    "halves: 1 shared + 5 of 23": dict(
        n_routed_experts=23, num_experts_per_tok=5, n_shared_experts=1, moe_intermediate_size=32
    ),
    "halves, none shared: 6 of 24": dict(
        n_routed_experts=24, num_experts_per_tok=6, n_shared_experts=0, moe_intermediate_size=32
    ),
    "quarters: 1 shared + 11 of 47": dict(
        n_routed_experts=47, num_experts_per_tok=11, n_shared_experts=1, moe_intermediate_size=16
    ),
}
_NO_GROUPS = dict(n_group=1, topk_group=1)


def without_shared(model: DeepSeekV3) -> DeepSeekV3:
    """The same weights with the shared expert silent, and one routed expert more for every token."""
    config = model.config.replace(n_shared_experts=0, num_experts_per_tok=model.config.num_experts_per_tok + 1)
    return DeepSeekV3(config, dtype=model.dtype, parameters=model.parameters.shared())


def run(settings: dict, job: Job) -> Outcome:
    model, numbers, _, curves = trained(settings, job)
    if model.config.n_shared_experts:
        _, train_config = configs(settings, job)
        numbers["loss_without_shared"] = validate(without_shared(model), text(job.data), train_config).mean_loss
    return Outcome(numbers, curves)


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    coarse, shared, halves, _, quarters = ARMS
    loss = {name: arm["loss"] for name, arm in arms.items()}
    found = []
    for claim, new, old in (
        ("isolating a shared expert lowers the loss", shared, coarse),
        ("halves lower it further", halves, shared),
        ("quarters lower it further", quarters, halves),
    ):
        found.append(Finding(claim, not not_above(loss[old], loss[new]), differs(loss[new], loss[old])))
    knocked = arms[halves]["loss_without_shared"]
    found.append(
        Finding(
            "a routed expert more does not replace the shared one",
            not not_above(knocked, loss[halves]),
            f"{halves}: {differs(knocked, loss[halves])}",
        )
    )
    return found


STUDY = Study(
    question="with the same parameters, are many small experts better than few large ones, and is one shared better?",
    arms={name: {"model": {**BALANCED, **model, **_NO_GROUPS}} for name, model in ARMS.items()},
    run=run,
    shown=("loss", "loss_without_shared", "max_vio", "parameters"),
    common=COMMON,
    findings=findings,
    seeds=(0, 1, 2, 3, 4),
)
