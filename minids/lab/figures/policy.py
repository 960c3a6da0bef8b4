"""Figure 29: GRPO: answers to one question are each other's measure, and what a run of it makes of a model."""

import json
from importlib import resources
from pathlib import Path

from minids.checkpoint.model_folder import load
from minids.config.policy import PolicyConfig
from minids.errors import refuse
from minids.lab.figures.picture import Box, Rows, Slide, column, only, picture
from minids.lab.figures.slide import BOLD, THIN
from minids.lab.figures.style import MONO
from minids.training.grpo import PolicyRun
from minids.training.metrics import read_metrics
from minids.training.rewards import TASKS
from minids.training.run_folder import RunFolder
from minids.words import si

ASKED = 16  # held-out questions, of which the one is shown whose answers differ most


def _rows(run: str | Path = "") -> Rows:
    """``run``: a folder that ``minids grpo`` wrote. The model it began with answers held-out questions as the run does; of the
    first ``ASKED`` that one is shown about which its answers differ most. Without a folder: a run that is kept with the
    package, of a model whose teacher's sums were wrong in two of five."""
    if not run:
        return json.loads((resources.files("minids.lab.figures") / "kept" / "grpo.json").read_text(encoding="utf-8"))
    described = RunFolder(Path(run)).description()
    if described.get("kind") != "grpo":
        raise refuse("run", str(run), "holds no run of minids grpo, which this picture is about")
    model = load(described["init_from"])
    task, policy = TASKS[described["task"]["name"]](model.tokenizer), PolicyConfig(**described["policy"])
    measured = [line for line in read_metrics(Path(run) / "metrics.jsonl") if "held_out" in line]
    about = {"model": f"{described['preset']}, {si(model.parameters.values.size)} parameters"}
    return [about | row for row in rows_of(PolicyRun(model, task, policy, say=lambda line: None), measured)]


def rows_of(judge: PolicyRun, measured: list[dict]) -> Rows:
    """The answers that ``judge``, a run that has made no step, gets and judges, and the curves of lines of metrics."""
    group, text = judge.config.group, judge.model.tokenizer.decode
    judged = [(question, judge.judged([question], group)) for question in judge.task.held_out[:ASKED]]
    question, found = max(judged, key=lambda one: one[1].rewards.std())
    about = {"group": "answer", "question": text(question).strip(), "mean": float(found.rewards.mean())}
    rows: Rows = [
        about | {"answer": text(answer).strip(), "reward": float(reward), "advantage": float(advantage)}
        for answer, reward, advantage in zip(found.rollouts.answers, found.rewards, found.advantage, strict=True)
    ]
    for line in measured:
        right = {name: line["held_out"][name] for name in ("one", "best", "greedy")}
        rows.append({"group": "curve", "step": line["step"], "answers": group} | right)
    return rows


@picture(29, _rows, source="grpo")
def grpo(slide: Slide, rows: Rows) -> None:
    """GRPO: answers to one question with their rewards and advantages, and how often a small model is right while it
    learns.

    Left, a sum and under it a line for each of several answers: a bar where its reward is one, with a line at the group's
    mean, and a bar of its advantage, to the right for right answers, to the left for wrong ones. Right, against the steps,
    the share of held-out sums that one answer, the best of a group, and the greedy answer get right: all three rise.
    """
    answers, curve = only(rows, group="answer"), only(rows, group="curve")
    first, last = curve[0], curve[-1]
    top = slide.headed(
        f"No critic: answers are measured by each other, and {100 * first['one']:.0f} % right become {100 * last['one']:.0f} %",
        f"GRPO, {last['step']} steps: advantage = (reward − mean of the group) / its standard deviation",
    )
    left, right = slide.parts(0.3, top - 0.1, 1.6 if slide.tall else 1.2, 1)
    _group(slide, answers, left)
    said = dict(xlabel="step", grid="y", xlim=(0, last["step"]), ylim=(0, 102))
    names = {"one": "pass@1", "best": f"pass@{last['answers']}", "greedy": "greedy"}
    words = {name: f"{said} {100 * last[name]:.0f}" for name, said in names.items()}
    ax = slide.within(right, "100", words.values(), "held-out, right, %", **said)
    for name, kind in (("one", "query"), ("best", "muted"), ("greedy", "hidden")):
        values = [100 * value for value in column(curve, name)]
        slide.curve(ax, column(curve, "step"), values, words[name], kind, **(BOLD if name == "one" else THIN))
    ax.locator_params(axis="x", nbins=4)


def _group(slide: Slide, answers: Rows, frame: Box) -> None:
    """A question, and under it a line for each answer: what it says, its reward, and its advantage to the left or right."""
    line, (_, high), (end, _) = slide.line, frame.above, frame.behind
    step, wide = (frame.h - 3.3 * line) / len(answers), min(0.9 * slide.letters, 0.16 * frame.w)
    size = min(17, 50 * step / slide.letters)
    room, most = int(0.42 * frame.w / slide.mono(size)), max(abs(row["advantage"]) for row in answers) or 1.0
    reward = frame.x + min(room, max(map(len, column(answers, "answer")))) * slide.mono(size) + 0.3
    zero = (reward + wide + 1.2 + end) / 2
    slide.verbatim(frame.x, high - 0.5 * line, answers[0]["question"], 19, weight="bold", family=MONO)
    for x, words, ha in ((reward, "reward", "left"), (zero, "advantage", "center")):
        slide.text(x, high - 1.7 * line, words, 16, "muted", ha=ha)
    for i, row in enumerate(answers):
        y, good = high - 2.4 * line - step * (i + 0.5), row["advantage"] > 0
        said = row["answer"] if len(row["answer"]) <= room else row["answer"][: room - 1] + "…"
        slide.verbatim(frame.x, y, said, size, "ink" if good else "muted", family=MONO)
        slide.rectangle(reward, y - 0.3 * step, max(wide * row["reward"], 0.04), 0.6 * step, "query")
        long = (end - zero - 0.1) * abs(row["advantage"]) / most
        slide.rectangle(zero if good else zero - long, y - 0.3 * step, long, 0.6 * step, "rope" if good else "shared")
        # on the other side of the line: there is always room
        at = zero - slide.width_of("+0.0", size) - 0.15 if good else zero + 0.12
        slide.text(at, y, f"{row['advantage']:+.1f}".replace("-", "−"), size)
    for x in (reward + wide * answers[0]["mean"], zero):
        slide.arrow((x, high - 2.4 * line - step * len(answers)), (x, high - 2.3 * line), kind="ink", width=2, head=False)
    slide.text(frame.x, frame.y + 0.1, f"line: the group's mean, {answers[0]['mean']:.2f}", 16, "muted")
