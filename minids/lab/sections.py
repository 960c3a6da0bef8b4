"""Which file runs each section of the DeepSeek-V3 report, and what came out: the map of the README.

``python -m minids.lab.sections`` prints it. Differences come from the results that are kept with the package, so that the table
cannot say anything else; other numbers are those of docs/findings.md or of ``minids claims``, and a test holds them to it. What
is not in minids says so.
"""

from collections.abc import Callable
from typing import NamedTuple

from minids.lab.analysis.claims import claim_named
from minids.lab.studies.average import DECAYS
from minids.lab.studies.compare import Difference, paired
from minids.lab.studies.store import results
from minids.lab.studies.study import Summary
from minids.terminal import say

MISSING = "not here"
RECOMPUTED = "the same bits; 136 MB kept instead of 311, in 1.15 times the time"


class Section(NamedTuple):
    """A row."""

    numbers: str  # of the report's sections
    what: str
    files: tuple[str, ...]  # below minids/, without ".py"; the first is where to begin
    came_out: Callable[[], str]


def said(words: str) -> Callable[[], str]:
    return lambda: words


def claimed(form: str, *names: str) -> Callable[[], str]:
    """Computed numbers of claims, put into ``form``."""
    return lambda: form.format(*(value for name in names for value in claim_named(name).computed()))


def apart(study: str, one: str, other: str, form: str, number: str = "loss", relative: bool = False) -> Callable[[], str]:
    """By how much two arms of a kept study differ, with the 95 % interval, put into ``form``."""

    def told() -> str:
        a, b = of(study, one, number), of(study, other, number)
        if relative:
            a, b = (s._replace(values=tuple(v / w for v, w in zip(s.values, b.values, strict=True))) for s in (a, b))
        return form.format(interval(paired(a, b), "+.2%" if relative else "+.3f"))

    return told


def of(study: str, arm: str, number: str) -> Summary:
    """A number of an arm, from the results that are kept."""
    return Summary(**results(study)["arms"][arm]["summary"][number])


def average_told() -> str:
    """What the best average gains on the plateau, and what the decay brings."""
    plateau, decayed = of("average", "adamw", "plateau"), of("average", "adamw", "decayed")
    best = min((of("average", "adamw", f"average {decay:g}") for decay in DECAYS), key=lambda average: average.mean)
    gain, brings = interval(paired(best, plateau), "+.3f"), f"{decayed.mean - plateau.mean:.3f}".replace("-", "−")
    return f"{gain} nats on the plateau; the decay brings {brings}"


def grpo_told() -> str:
    """What rewards teach where the teacher of the text errs in 40 % of its sums."""
    before, imitation, after = (percent("grpo", arm) for arm in ("base", "trained on", "GRPO"))
    return f"{before} % of sums right at first, {imitation} % with more imitation, {after} % with GRPO"


def distillation_told() -> str:
    """What a small student reaches by its own rewards, and by a large teacher's answers."""
    arms = ("student", "student, GRPO", "answers of the teacher")
    before, own, followed = (percent("distillation", arm) for arm in arms)
    return f"a small student {before} % right, by its own rewards {own} %, by the teacher's answers {followed} %"


def percent(study: str, arm: str) -> str:
    return f"{100 * of(study, arm, 'pass@1').mean:.0f}"


def interval(found: Difference, form: str) -> str:
    return f"{found.mean:{form}} [{found.low:{form}}, {found.high:{form}}]".replace("-", "−")


SECTIONS = (
    Section("2.1.1", "multi-head latent attention", ("layers/mla", "lab/studies/attention"),
            said("36 numbers cached a token where MHA has 160; +0.057 [+0.008, +0.106] nats")),
    Section("2.1.2", "experts, bias against imbalance", ("layers/moe", "ops/router", "ops/bias_update"),
            lambda: f"MaxVio {of('balance', 'none', 'max_vio').mean:.2f} without balancing, "
            f"{of('balance', 'bias 0.003', 'max_vio').mean:.2f} with the bias"),
    Section("2.2", "multi-token prediction", ("layers/mtp", "ops/mtp_combine"),
            said("guesses 69 to 90 % of the next-but-one tokens")),
    Section("3.1, 3.5", "the cluster, advice on hardware", (), said("hardware")),
    Section("3.2.1", "DualPipe", ("parallel/pipeline", "parallel/pipeline_orders"),
            claimed("executed: a single process's gradients; simulated: bubbles of {:.0f}, {:.0f}, {:.0f} units", "bubbles")),
    Section("3.2.2", "ZeRO-1, all-to-all over nodes", ("parallel/zero", "parallel/exchange", "lab/analysis/traffic"),
            claimed("executed, bytes as counted; {:.1f} experts a node at no extra cost", "experts_per_node")),
    Section("3.2.3", "recomputation", ("layers/recompute", "lab/bench/recompute"), said(RECOMPUTED)),
    Section("3.2.3", "average of the weights", ("training/average", "lab/studies/average"), average_told),
    Section("3.3.1", "FP8 training", ("layers/fp8", "ops/fp8_linear"), apart("fp8", "fp8", "fp32", "loss {}", relative=True)),
    Section("3.3.2", "tiles, sums, delayed scales", ("ops/quantise", "ops/fp8_accumulation", "ops/delayed"),
            apart("fp8-scaling", "fp8 delayed", "fp8 per tensor", "delayed against online scales {} nats")),
    Section("3.3.3", "moments in BF16, FP8 activations", ("ops/bfloat16", "ops/fp8_feed_forward"),
            said("half the bytes of the moments")),
    Section("3.4", "serving: redundant and shared experts", ("parallel/eplb", "lab/analysis/placement"),
            claimed("{:.0f} redundant experts; {:.0f} GPUs for them and the shared one", "prefill_gpus", "decode_gpus")),
    Section("4.1", "fill-in-the-middle", ("training/fill_in_the_middle", "inference/infill"),
            apart("fim", "fim 0.1", "left to right", "{} nats from left to right")),
    Section("4.1", "joined tokens split", ("training/token_boundaries",),
            apart("token-boundary", "joined, 10 % split", "joined", "surprise of a line break {} nats", "break_nats")),
    Section("4.2", "schedules, batch ramp", ("training/schedule", "training/batch_ramp"),
            apart("batch-ramp", "V3's ramp", "constant", "ramp {} nats at equal tokens")),
    Section("4.3", "long context by YaRN", ("ops/yarn", "lab/studies/long_context"),
            said("perplexity at four times the length 12.8 without, 9.1 with")),
    Section("4.4, 5.3", "evaluation", ("training/evaluate",), said("bits per byte; no benchmarks")),
    Section("4.5.1", "MTP ablation", ("lab/studies/mtp",), apart("mtp", "weight 0.3", "none", "main loss {} nats")),
    Section("4.5.2", "balancing without a loss", ("lab/studies/balance",),
            apart("balance", "bias 0.003", "batch loss 0.1", "bias against loss {} nats")),
    Section("4.5.3", "batch- against sequence-wise loss", ("lab/studies/load", "lab/studies/balance"),
            apart("balance", "batch loss 0.1", "sequence loss 0.1", "{} nats")),
    Section("5.1, 5.2", "fine-tuning, reward models, GRPO",
            ("training/sft", "training/reward_model", "training/grpo", "ops/policy_loss"), grpo_told),
    Section("5.4.1, 5.4.2", "distillation; self-rewarding is not here", ("training/imitation", "ops/distillation"),
            distillation_told),
    Section("5.4.3", "guesses of the MTP module", ("inference/speculative", "lab/bench/speculation"),
            said("1.7 to 1.9 tokens a pass, no time gained")),
)  # fmt: skip


def table(within: str = "minids") -> str:
    """As Markdown; ``within``: the package's folder as seen from the page."""
    rows = ["| section | what | runs in | what came out here |", "|---|---|---|---|"]
    for numbers, what, files, came_out in SECTIONS:
        links = ", ".join(f"[`{name.rpartition('/')[2]}`]({within}/{name}.py)" for name in files)
        rows.append(f"| {numbers} | {what} | {links or '—'} | {came_out()} |")
    return "\n".join(rows)


if __name__ == "__main__":
    say(table())
