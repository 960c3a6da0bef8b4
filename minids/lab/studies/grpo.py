"""What rewards teach that imitation cannot: GRPO and its variants on sums whose teacher errs (DeepSeek-V3, section 5.2.2).

Every arm of a seed begins with the same model, pretrained on two-digit sums of which ``WRONG`` have a wrong result and few are
written out (``erring_sums.py``). Then, by arm:

    trained on            reads as many steps more of the same text as made the base: imitation, about as long as GRPO takes
    rejection sampling    as many answers as GRPO draws, all from the base; the right ones are learned from, each
                          six times
    GRPO …                ``steps`` rounds of 16 questions with 8 answers, and one thing done otherwise

Right is what a rule says, so that the teacher's errors teach nothing here. ``post_training.py`` says what is measured.
"""

from __future__ import annotations

import json
from contextlib import ExitStack

import numpy as np

from minids.backend import replaced
from minids.config import TrainConfig
from minids.config.policy import PolicyConfig
from minids.lab.studies.compare import above, below, difference, paired
from minids.lab.studies.erring_sums import AT_ONCE, BREAK, LONGEST, WRONG, right, task
from minids.lab.studies.post_training import (
    BASE,
    MODEL,
    acceptance_on_text,
    base,
    checked_data,
    learn,
    measured,
    pretrain,
    timed,
    twin,
)
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.lab.studies.training import Curves
from minids.layers.parameters import Array
from minids.model import DeepSeekV3
from minids.ops import policy_loss
from minids.training.imitation import rejection_sampling
from minids.training.printing import without_bars

POLICY = dict(questions=16, group=8, max_new_tokens=LONGEST, learning_rate=3e-4, constant_until=0.25, decay_to=0.1)
"""What all arms of GRPO share: the rate falls along half a cosine from a quarter of the run on."""
TUNING = dict(epochs=6, context_length=64, batch_size=32, learning_rate=1e-3, decay_to=0.1)
"""How rejection sampling learns what it kept: about as many answers a step as GRPO, and about as many steps."""
BETA = 0.3

BEFORE, IMITATION, REJECTION = "base", "trained on", "rejection sampling"
GRPO, DR, ANSWER, NO_MTP = "GRPO", "Dr. GRPO", "GRPO per answer", "GRPO without MTP"
HELD, PRINTED, LOGS = "GRPO, KL", "GRPO, KL uncorrected", "GRPO, KL as a difference of logs"
FOUR, FREE = "GRPO, 4 updates", "GRPO, 4 updates without Keep Routing"
SMALL, LARGE = "GRPO, groups of 4", "GRPO, groups of 32"
ARMS: dict[str, dict] = {
    BEFORE: {},
    IMITATION: {"how": "pretrain"},
    REJECTION: {"how": "reject"},
    GRPO: {"policy": {}},
    DR: {"policy": {"by_std": False, "divisor": float(LONGEST)}},
    ANSWER: {"policy": {"by": "answer"}},
    NO_MTP: {"policy": {"mtp": False}},
    HELD: {"policy": {"beta": BETA}},
    PRINTED: {"policy": {"beta": BETA, "corrected": False}},
    LOGS: {"policy": {"beta": BETA, "corrected": False}, "difference_of_logs": True},
    FOUR: {"policy": {"updates": 4}},
    FREE: {"policy": {"updates": 4, "keep_routing": False}},
    SMALL: {"policy": {"questions": 32, "group": 4}},
    LARGE: {"policy": {"questions": 4, "group": 32}},
}
Found = tuple[dict[str, float], dict[str, list[float]]]  # numbers of how an arm learned, and its curves


def run(settings: dict, job: Job) -> Outcome:
    checked_data(job)
    before = base(job.seed, json.dumps(MODEL), json.dumps(BASE))
    model = twin(before)
    (numbers, curves), seconds = timed(lambda: taught(settings, model, job))
    numbers |= measured(model, before) | {"acceptance_text": acceptance_on_text(model), "seconds_learning": seconds}
    return Outcome(numbers, curves)


def taught(settings: dict, model: DeepSeekV3, job: Job) -> Found:
    """Do with ``model`` what the arm does with the base."""
    if "policy" in settings:
        policy = PolicyConfig(**POLICY, steps=job.steps, seed=job.seed, eval_every=0).replace(**settings["policy"])
        with ExitStack() as stack:
            if settings.get("difference_of_logs"):
                stack.enter_context(replaced(policy_loss, k3=difference_of_logs))
            return learn(model, policy, job)
    found: Found = ({}, {})
    if settings.get("how") == "pretrain":
        curves = Curves(BASE["steps"])
        rng = np.random.default_rng([job.seed, 2])
        pretrain(model, TrainConfig(**BASE), rng, lambda step, loss: curves.add(step, loss=loss))
        found = {}, curves.values
    elif settings.get("how") == "reject":
        asked, rng = task().questions, np.random.default_rng([job.seed, 2])
        count = job.steps * POLICY["questions"]
        prompts = [asked[i] for i in rng.choice(len(asked), count, replace=count > len(asked))]
        drawn = dict(group=POLICY["group"], max_new_tokens=LONGEST, seed=job.seed, stop=[BREAK])
        with without_bars():
            history = rejection_sampling(model, prompts, right, **drawn, say=lambda line: None, **TUNING)
        curves = Curves(len(history))
        for line in history:
            curves.add(line["step"], loss=line["loss"])
        found = {"tuning_steps": len(history)}, curves.values
    job.tell(job.steps)
    return found


def difference_of_logs(log_q: Array) -> tuple[Array, Array]:
    """The wrong estimator of KL that public implementations repeat: ln π − ln π_ref in the place of D, and its derivative by
    ln π. On the policy's own answers that gradient is 0 in expectation."""
    return -log_q, np.ones_like(log_q)


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    def of(arm: str, number: str) -> Summary:
        return arms[arm][number]

    def reaches(claim: str, arm: str, number: str, target: float, sign: int = 1) -> Finding:
        apart = difference([sign * (value - target) for value in of(arm, number).values])
        return Finding(claim, {1: True, -1: False}.get(apart.sign), f"{of(arm, number)}")

    def gains(claim: str, arm: str, other: str = GRPO, number: str = "pass@1") -> Finding:
        return above(claim, of(arm, number), of(other, number))

    near = paired(of(FOUR, "pass@1"), of(FREE, "pass@1"))
    return [
        reaches("imitation goes on below 65 % right at temperature 1, as its teacher does", IMITATION, "pass@1", 0.65, -1),
        reaches("GRPO passes 90 % right at temperature 1", GRPO, "pass@1", 0.9),
        reaches("GRPO passes 92 % right greedily", GRPO, "greedy", 0.92),
        gains("GRPO gets more right than pretraining on", GRPO, IMITATION),
        gains("GRPO gets more right than rejection sampling from as many answers", GRPO, REJECTION),
        gains("one of 8 answers is right more often after GRPO than before", GRPO, BEFORE, "pass@8"),
        gains("answers get longer: GRPO has the steps written out", GRPO, BEFORE, "length"),
        below("the entropy falls", of(GRPO, "entropy"), of(BEFORE, "entropy")),
        gains("Dr. GRPO gets more right than GRPO", DR),
        gains("one ratio an answer gets more right than one a token", ANSWER),
        below(f"β = {BETA} keeps the policy nearer to the base", of(HELD, "divergence"), of(GRPO, "divergence")),
        below("it costs right answers", of(HELD, "pass@1"), of(GRPO, "pass@1")),
        below("uncorrected, the same β keeps it nearer still", of(PRINTED, "divergence"), of(HELD, "divergence")),
        below("and costs more right answers", of(PRINTED, "pass@1"), of(HELD, "pass@1")),
        above("as a difference of logs, it keeps it less near", of(LOGS, "divergence"), of(HELD, "divergence")),
        above(
            "without Keep Routing choices flip between answer and update", of(FREE, "flipped"), _nothing(of(FREE, "flipped"))
        ),
        Finding("with four updates, Keep Routing changes the share right by less than 1 %", near.within(0.01), near.told()),
        gains("groups of 32 get more right than groups of 8, with as many answers", LARGE),
        below("groups of 4 get fewer right", of(SMALL, "pass@1"), of(GRPO, "pass@1")),
        gains("with MTP trained along, more guesses are kept than without", GRPO, NO_MTP, "acceptance"),
        gains("with MTP trained along, more guesses are kept than before", GRPO, BEFORE, "acceptance"),
        gains("on the teacher's text too", GRPO, NO_MTP, "acceptance_text"),
        below(
            "on the teacher's text fewer guesses are kept than before",
            of(GRPO, "acceptance_text"),
            of(BEFORE, "acceptance_text"),
        ),
    ]


def _nothing(like: Summary) -> Summary:
    return Summary(0.0, 0.0, tuple(0.0 for _ in like.values))


STUDY = Study(
    question="what do rewards teach that imitation of an erring teacher cannot, and which parts of GRPO matter?",
    arms=ARMS,
    run=run,
    shown=(
        "pass@1",
        "steps_to_85",
        "pass@8",
        "greedy",
        "entropy",
        "length",
        "divergence",
        "flipped",
        "acceptance",
        "acceptance_text",
    ),
    common={"model": MODEL, "base": BASE, "policy": POLICY, "tuning": TUNING, "wrong": WRONG, "at_once": AT_ONCE},
    findings=findings,
    steps=400,
)
