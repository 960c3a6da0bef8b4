"""With and without multi-token prediction: what it does to the main loss, and how well the module sees the second token.

DeepSeek-V3 table 4: the main loss is unchanged by the MTP module (0.729 bits per byte with and without it at 16 billion
parameters), benchmarks improve, and the second token is right often enough to draft with (section 5.4.3). The weight λ is
swept: V3 uses 0.3, and a third of it once the learning rate decays.
"""

import numpy as np

from minids.lab.studies.base import BALANCED, COMMON, configs, trained
from minids.lab.studies.compare import above, below
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.lab.studies.training import text, validation_batches

WEIGHTS = (0.1, 0.3, 1.0)
ARMS = {
    "none": dict(num_nextn_predict_layers=0),
    **{f"weight {w:g}": dict(num_nextn_predict_layers=1, mtp_loss_weight=w) for w in WEIGHTS},
    "two modules": dict(num_nextn_predict_layers=2, mtp_loss_weight=0.3),
}


def run(settings: dict, job: Job) -> Outcome:
    model, numbers, _, curves = trained(settings, job)
    _, train_config = configs(settings, job)
    batches = [b for domain in validation_batches(text(job.data), train_config).values() for b in domain]
    targets = np.concatenate([targets for _, targets in batches])  # (S, T)
    first = np.concatenate([model.logits(tokens).argmax(axis=-1) for tokens, _ in batches])  # (S, T)
    numbers["first_token"] = float(np.mean(first == targets))
    if not model.mtp:
        return Outcome(numbers, curves)
    ahead = [[logits.argmax(axis=-1) for logits in model.mtp_logits(tokens)] for tokens, _ in batches]
    for depth, guesses in enumerate(zip(*ahead, strict=True), start=1):
        guessed = np.concatenate(guesses)  # (S, T − depth)
        name = {1: "second_token", 2: "third_token"}[depth]
        numbers[name] = float(np.mean(guessed == targets[:, depth:]))
        # A draft is kept where the main model, that many tokens later, says the same: greedy acceptance.
        numbers[f"{name}_accepted"] = float(np.mean(guessed == first[:, depth:]))
    return Outcome(numbers, curves)


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    loss = {name: arm["loss"] for name, arm in arms.items()}
    three = arms["weight 0.3"]
    best = min((f"weight {w:g}" for w in WEIGHTS if w != 0.3), key=lambda name: loss[name].mean)
    second, first, accepted = (three[name] for name in ("second_token", "first_token", "second_token_accepted"))
    other = "the main loss with V3's λ = 0.3 is not above that of the best other λ"
    sees = "the module, shown one token more, is right about the second as often as the main model about the first"
    drafts = f"{accepted}; V3 reports 0.85 to 0.90 for sampled text"
    return [
        below("the main loss with V3's λ = 0.3 is not above that without MTP", loss["weight 0.3"], loss["none"]),
        below(other, loss["weight 0.3"], loss[best], f"{best}: "),
        above(sees, second, first),
        Finding("the module's greedy draft is accepted more often than not", accepted.mean > 0.5, drafts),
    ]


STUDY = Study(
    question="does predicting a second token change the first, and how often is the second right?",
    arms={name: {"model": {**BALANCED, **model}} for name, model in ARMS.items()},
    run=run,
    shown=("loss", "first_token", "second_token", "second_token_accepted", "third_token"),
    common=COMMON,
    findings=findings,
    seeds=(0, 1, 2, 3, 4),
)
