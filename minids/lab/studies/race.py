"""A race everyone knows: tiny Shakespeare by characters, with what nanoGPT's recipe for a CPU sees of it.

That recipe takes 2,000 steps of 12 × 64 characters, 1.536 million, with 0.80 million parameters, and ends at a validation
loss of 1.886 nats per character. Here: the same characters, the same division of the text (first 90 %, last 10 %), the same
context of 64, validation over the whole of the last 10 %, and at most 1.0 million parameters at work on a token (embedding
and head included, as ``minids info`` counts them). The preset ``shakespeare`` is the arm "MoE".

The ladder changes one thing at a time, with the same characters in the same order: a dense Transformer with multi-head
attention; MLA in its place; experts in the place of the dense networks; an MTP module. The dense networks of the first two are
as wide as the experts a token meets, 3 × 64. The last arm is the preset with V3's optimizer in the place of
Muon.
"""

import dataclasses
import time
from itertools import pairwise

from minids.config import ModelConfig, TrainConfig
from minids.lab.analysis.parameters import activated
from minids.lab.studies.base import configs
from minids.lab.studies.compare import below
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.lab.studies.training import Curves, text, train
from minids.model import DeepSeekV3
from minids.training.evaluate import validation
from minids.training.optimizer import optimizer
from minids.training.text import Text

NANOGPT = 1.886  # validation loss that nanoGPT's recipe ends at; its README says 1.88
CHARACTERS = 2000 * 12 * 64  # what it sees, and what anyone may see here
CHECKS = 16  # validation passes along a run, not counted in its seconds

_DENSE = dict(first_k_dense_replace=ModelConfig.preset("shakespeare").num_hidden_layers)
_ADAMW = dict(optimizer="adamw", learning_rate=3e-3)
ARMS = {
    "dense": {"model": dict(attention="mha", **_DENSE)},
    "MLA": {"model": dict(**_DENSE)},
    "MoE": {"model": {}},
    "MTP": {"model": dict(num_nextn_predict_layers=1)},
    "MoE, AdamW": {"model": {}, "train": _ADAMW},
}


def _chosen(config: ModelConfig | TrainConfig) -> dict:
    """The fields of a configuration that are not the class's defaults."""
    default = type(config)()
    return {name: value for name, value in dataclasses.asdict(config).items() if value != getattr(default, name)}


COMMON = {name: _chosen(kind.preset("shakespeare")) for name, kind in (("model", ModelConfig), ("train", TrainConfig))}


def held_out_loss(model: DeepSeekV3, corpus: Text, batch_size: int, length: int) -> float:
    """Nats per character on all of the held-out text, in windows of ``length``."""
    found = validation(model, corpus.held_out, corpus.tokenizer, batch_size, length, None)
    return sum(domain["loss"] for domain in found.values()) / len(found)


def run(settings: dict, job: Job) -> Outcome:
    model_config, train_config = configs(settings, job, COMMON)
    corpus = text(job.data, train_config.validation_share, "chars")
    curves, seconds, processor_seconds = Curves(job.steps), 0.0, 0.0
    checked: dict[str, list[float]] = {"step": [], "characters": [], "seconds": [], "loss": []}
    at = {max(1, job.steps * i // CHECKS) for i in range(1, CHECKS + 1)}
    began, began_work = time.perf_counter(), time.process_time()

    def on_step(step, losses, model):
        nonlocal seconds, processor_seconds, began, began_work
        seconds += time.perf_counter() - began
        processor_seconds += time.process_time() - began_work
        curves.add(step, loss=losses.main)
        if step in at:
            loss = held_out_loss(model, corpus, train_config.batch_size, train_config.context_length)
            for name, value in zip(checked, (step, step * train_config.tokens_per_step, seconds, loss), strict=True):
                checked[name].append(value)
        job.tell(1)
        began, began_work = time.perf_counter(), time.process_time()

    model = train(model_config, train_config, corpus, job.seed, on_step, optimizer, job.threads)
    numbers = {
        "loss": checked["loss"][-1],
        "seconds": seconds,  # of training
        "processor_seconds": processor_seconds,  # of all threads; less swayed by what else runs on the machine
        "active": activated(model.config, "both"),
        "parameters": model.parameters.values.size,
        "characters": job.steps * train_config.tokens_per_step,
    }
    for i, loss in enumerate(checked["loss"]):
        if loss <= NANOGPT:
            numbers |= {"characters_to_nanogpt": checked["characters"][i], "seconds_to_nanogpt": checked["seconds"][i]}
            break
    return Outcome(numbers, curves.values, {"validation": checked})


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    loss = {name: arm["loss"] for name, arm in arms.items()}
    sees, active = arms["MoE"]["characters"].mean, arms["MoE"]["active"].mean
    small = "the preset sees nanoGPT's characters with at most 1.0 million parameters at work"
    found = [
        Finding("the preset's mean loss is at most 1.60", loss["MoE"].mean <= 1.6, str(loss["MoE"])),
        Finding(small, active <= 1e6 and sees <= CHARACTERS, f"{sees:,.0f} characters, {active:,.0f} parameters"),
    ]
    ladder = [name for name in ARMS if "," not in name]
    for lower, higher in pairwise(ladder):
        found.append(below(f"the step from {lower} to {higher} lowers the loss", loss[higher], loss[lower]))
    found.append(below("Muon's loss is below AdamW's", loss["MoE"], loss["MoE, AdamW"]))
    return found


def receipt(results: dict) -> list[str]:
    """Every run of the preset, and how the first one's validation loss fell."""
    arm = results["arms"].get("MoE", {"runs": []})
    lines = []
    for run in arm["runs"]:
        if n := run.get("numbers"):
            told = [f"MoE, seed {run['seed']}: loss {n['loss']:.4f} after {n['characters']:,} characters, {n['seconds']:.0f} s"]
            if "characters_to_nanogpt" in n:
                told.append(f"{NANOGPT} after {n['characters_to_nanogpt']:,} characters")
            lines.append(", ".join(told))
    if lines:
        looks = arm["details"]["validation"]
        points = (f"{step} {loss:.3f}" for step, loss in zip(looks["step"], looks["loss"], strict=True))
        lines.append("Validation loss by step, first seed: " + ", ".join(points))
    return lines


STUDY = Study(
    question="how far does a DeepSeek-V3 of this size come with the characters of nanoGPT's CPU recipe, and what of it helps?",
    arms=ARMS,
    run=run,
    shown=("loss", "seconds", "processor_seconds", "seconds_to_nanogpt", "characters_to_nanogpt", "active", "parameters"),
    common=COMMON,
    findings=findings,
    remarks=receipt,
    steps=TrainConfig.preset("shakespeare").steps,
    data=("shakespeare",),
)
