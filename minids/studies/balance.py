"""Balancing with and without an auxiliary loss: what evenness costs, and what is left of specialisation."""

from __future__ import annotations

from minids.studies.base import COMMON, configs
from minids.studies.study import Job, Outcome, Study
from minids.studies.training import Curves, text, train, validate
from minids.training.metrics import max_violation


def _arms() -> dict[str, dict]:
    arms = {"none": {"balance": "none"}}
    for alpha in (0.001, 0.01, 0.1):
        arms[f"aux {alpha:g}"] = {"balance": "aux_loss", "seq_aux": False, "aux_loss_alpha": alpha}
    for speed in (0.001, 0.003, 0.01, 0.03):
        arms[f"bias {speed:g}"] = {"balance": "bias", "bias_update_speed": speed, "aux_loss_alpha": 0.0}
    return {name: {"model": model} for name, model in arms.items()}


def run(settings: dict, job: Job) -> Outcome:
    model_config, train_config = configs(settings, job)
    corpus, curves = text(job.data), Curves(job.steps)

    def on_step(step, losses, model):
        curves.add(step, loss=losses.main, max_vio_batch=float(max_violation(losses.counts).mean()))
        job.tell(1)

    model = train(model_config, train_config, corpus, job.seed, on_step)
    found = validate(model, corpus, train_config)
    numbers = {
        "loss": found.mean_loss,
        "max_vio_global": float(max_violation(found.all_counts).mean()),
        "max_vio_batch": curves.values["max_vio_batch"][-1],
    }
    return Outcome(numbers, curves.values)


STUDY = Study(
    question="does a bias keep the experts' load even without the cost of an auxiliary loss?",
    arms=_arms(),
    run=run,
    shown=("loss", "max_vio_global", "max_vio_batch"),
    common=COMMON,
    steps=400,
)
