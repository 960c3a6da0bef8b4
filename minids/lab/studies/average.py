"""Does a moving average of the weights, on the plateau of the learning rate, tell the loss after the decay?

DeepSeek-V3 section 3.2.3 keeps such an average "for early estimation of the model performance after learning rate decay". Here
a run with V3's schedule is looked at when its plateau ends (68 % of the steps): the weights as they are, their averages with
several decays, and, at the end of the same run, the weights after the decay. The estimate is an average's loss on the plateau;
its error is how far the final loss is from it.
"""

from minids.lab.studies.base import BALANCED, COMMON, configs
from minids.lab.studies.compare import above, below, decided, difference, paired
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.lab.studies.training import Curves, text, training, validate
from minids.training.average import WeightAverage
from minids.training.optimizer import optimizer

ADAMW, MUON = "adamw", "muon"
ARMS = {ADAMW: {}, MUON: {"optimizer": "muon", "learning_rate": 0.015}}
DECAYS = (0.8, 0.9, 0.95, 0.98)  # the last 5, 10, 20 and 50 steps or so


def run(settings: dict, job: Job) -> Outcome:
    model_config, train_config = configs(settings, job)
    corpus, curves = text(job.data), Curves(job.steps)
    plateau = int(train_config.constant_until * job.steps)  # steps of it
    averages: dict[float, WeightAverage] = {}
    numbers: dict[str, float] = {}
    for step, losses, model in training(model_config, train_config, corpus, job.seed, optimizer, job.threads):
        averages = averages or {decay: WeightAverage(model.parameters, decay) for decay in DECAYS}
        curves.add(step, loss=losses.main)
        job.tell(1)
        for average in averages.values():
            average.update()
        if step == plateau:
            numbers["plateau"] = validate(model, corpus, train_config).mean_loss
            for decay, average in averages.items():
                with average.in_place():
                    numbers[f"average {decay:g}"] = validate(model, corpus, train_config).mean_loss
    numbers["decayed"] = validate(model, corpus, train_config).mean_loss
    with averages[DECAYS[0]].in_place():
        numbers["decayed average"] = validate(model, corpus, train_config).mean_loss
    return Outcome(numbers, curves.values)


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    found = []
    for name, arm in arms.items():
        plateau, decayed = arm["plateau"], arm["decayed"]
        best = min((f"average {decay:g}" for decay in DECAYS), key=lambda key: arm[key].mean)
        average = arm[best]
        claim = f"{name}: the averaged weights on the plateau are better than the last ones"
        found.append(below(claim, average, plateau, f"{best}: "))
        off = paired(average, decayed), paired(plateau, decayed)
        further = [abs(a - z) - abs(p - z) for a, p, z in zip(average.values, plateau.values, decayed.values, strict=True)]
        claim = f"{name}: the average's loss is nearer to that after the decay than the plateau's is"
        told = f"off by {off[0].mean:+.4f} against {off[1].mean:+.4f}, of their sizes {difference(further).told()}"
        found.append(Finding(claim, decided(-difference(further).sign), told))
        found.append(above(f"{name}: the loss after the decay is lower still", average, decayed, f"{best}: "))
    return found


STUDY = Study(
    question="does an average of the weights on the plateau tell the loss after the learning rate's decay?",
    arms={name: {"model": BALANCED, "train": train} for name, train in ARMS.items()},
    run=run,
    shown=("plateau", *(f"average {decay:g}" for decay in DECAYS), "decayed", "decayed average"),
    common=COMMON,
    findings=findings,
)
