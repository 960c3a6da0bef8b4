"""Many small experts against few large ones, and a shared expert, each with the same parameters in all and per token.

DeepSeekMoE (Dai et al. 2024) section 4: at equal size, isolating a shared expert helps, and cutting every expert into 2 and
into 4 helps again (figure 3). Once trained, the shared expert cannot be replaced: without it and with one routed expert more,
the loss rises from 1.808 to 2.414 (section 4.5).
"""

from minids.lab.analysis.same_weights import same_weights
from minids.lab.studies.base import BALANCED, COMMON, configs, trained
from minids.lab.studies.compare import above, below
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.lab.studies.training import text, validate
from minids.model import DeepSeekV3


def _experts(chosen: int, routed: int, shared: int, width: int) -> dict[str, int]:
    sizes = dict(n_routed_experts=routed, num_experts_per_tok=chosen, n_shared_experts=shared)
    return {**sizes, "moe_intermediate_size": width}


# One "unit" is an expert of width 64; 12 units in all, 3 of them at work for a token. No groups: they would limit each arm
# in another way.
ARMS = {
    "3 of 12": _experts(3, 12, 0, 64),
    "1 shared + 2 of 11": _experts(2, 11, 1, 64),
    "halves: 1 shared + 5 of 23": _experts(5, 23, 1, 32),
    "halves, none shared: 6 of 24": _experts(6, 24, 0, 32),
    "quarters: 1 shared + 11 of 47": _experts(11, 47, 1, 16),
}
_NO_GROUPS = dict(n_group=1, topk_group=1)


def without_shared(model: DeepSeekV3) -> DeepSeekV3:
    """The same weights with the shared expert silent, and one routed expert more for every token."""
    c = model.config
    return same_weights(model, c.replace(n_shared_experts=0, num_experts_per_tok=c.num_experts_per_tok + 1))


def run(settings: dict, job: Job) -> Outcome:
    model, numbers, _, curves = trained(settings, job)
    if model.config.n_shared_experts:
        _, train_config = configs(settings, job)
        numbers["loss_without_shared"] = validate(without_shared(model), text(job.data), train_config).mean_loss
    return Outcome(numbers, curves)


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    coarse, shared, halves, _, quarters = ARMS
    loss = {name: arm["loss"] for name, arm in arms.items()}
    knocked = arms[halves]["loss_without_shared"]
    return [
        below("isolating a shared expert lowers the loss", loss[shared], loss[coarse]),
        below("halves lower it further", loss[halves], loss[shared]),
        below("quarters lower it further", loss[quarters], loss[halves]),
        above("a routed expert more does not replace the shared one", knocked, loss[halves], f"{halves}: "),
    ]


STUDY = Study(
    question="with the same parameters, are many small experts better than few large ones, and is one shared better?",
    arms={name: {"model": {**BALANCED, **model, **_NO_GROUPS}} for name, model in ARMS.items()},
    run=run,
    shown=("loss", "loss_without_shared", "max_vio", "parameters"),
    common=COMMON,
    findings=findings,
    seeds=(0, 1, 2, 3, 4),
)
