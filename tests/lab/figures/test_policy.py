"""The picture of GRPO: a group's advantages, and the curves of a run, from a folder or as they are kept."""

import json

import numpy as np
import pytest
from lab.figures.proof import faults, words

from minids import DeepSeekV3, MinidsError, ModelConfig
from minids.checkpoint.tokenizer import character_tokenizer
from minids.config.policy import PolicyConfig
from minids.lab import figures
from minids.lab.figures import policy
from minids.lab.figures.picture import Look, column, only
from minids.lab.figures.sources import Sources
from minids.training.grpo import PolicyRun
from minids.training.rewards import Task


def test_advantages_are_those_of_the_rewards_that_are_kept():
    rows = figures.grpo.rows()
    answers, curve = only(rows, group="answer"), only(rows, group="curve")
    rewards = np.array(column(answers, "reward"))
    a, b = answers[0]["question"].rstrip("=").split("+")
    assert [row["answer"].split("=")[-1] == str(int(a) + int(b)) for row in answers] == [reward == 1 for reward in rewards]
    np.testing.assert_allclose(column(answers, "advantage"), (rewards - rewards.mean()) / rewards.std(), rtol=1e-6)
    shown = words(figures.grpo())
    assert f"{100 * curve[0]['one']:.0f} % right become {100 * curve[-1]['one']:.0f} %" in shown
    assert f"the group's mean, {rewards.mean():.2f}" in shown and f"pass@8 {100 * curve[-1]['best']:.0f}" in shown


@pytest.mark.parametrize("look", [Look(), Look("dark"), Look(letters=1.5), Look(aspect="column")], ids=str)
def test_nothing_overlaps(look):
    assert faults(figures.grpo.drawn(figures.grpo.rows(), look=look), smallest=5.2) == []


def judge(reward):
    config = ModelConfig.preset("tiny", num_hidden_layers=2, hidden_size=16, intermediate_size=16, moe_intermediate_size=8)
    model = DeepSeekV3(config.replace(vocab_size=13, bos_token_id=None, eos_token_id=None), seed=0)
    model.tokenizer = character_tokenizer(["0123456789+=\n"])
    asked = [model.tokenizer.encode(f"\n{n}+1=").tolist() for n in range(3)]
    task = Task("sums", asked, asked, reward, ["\n"])
    return PolicyRun(model, task, PolicyConfig(group=4, max_new_tokens=3, seed=1), say=lambda line: None)


def test_the_question_is_shown_whose_answers_differ_most():
    rewards = {"0": [1, 1, 1, 1], "1": [0, 1, 0, 1], "2": [0, 0, 0, 1]}  # of each question, answer by answer
    turn = {question: iter(given) for question, given in rewards.items()}
    lines = [{"step": s, "held_out": {"one": 0.5, "best": 1.0, "greedy": 0.25, "length": 3.0}} for s in (0, 10)]
    rows = policy.rows_of(judge(lambda question, answer: float(next(turn[question.strip()[0]]))), lines)
    answers = only(rows, group="answer")
    assert answers[0]["question"] == "1+1=" and column(answers, "reward") == rewards["1"]
    np.testing.assert_allclose(column(answers, "advantage"), [-1, 1, -1, 1])
    assert only(rows, group="curve") == [
        {"group": "curve", "step": s, "answers": 4, "one": 0.5, "best": 1.0, "greedy": 0.25} for s in (0, 10)
    ]


def test_a_folder_of_another_kind_is_refused_and_not_asked(run, tmp_path):
    with pytest.raises(MinidsError, match="holds no run of minids grpo"):
        figures.grpo.rows(run=run)
    kept = Sources(str(run), kept=tmp_path).rows(figures.grpo)
    assert kept == figures.grpo.rows(), "a run of minids train has no rewards: the kept one is drawn"


def test_a_folder_of_minids_grpo_is_drawn(tmp_path, monkeypatch):
    made = judge(lambda question, answer: float(len(answer) > 1))
    described = {"kind": "grpo", "init_from": "base", "task": {"name": "sums"}, "preset": "tiny"}
    described["policy"] = {"group": 4, "max_new_tokens": 3, "seed": 1}
    (tmp_path / "run.json").write_text(json.dumps(described))
    lines = [{"step": s, "held_out": {"one": 0.5, "best": 1.0, "greedy": 0.25, "length": 3.0}} for s in (0, 10)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(policy, "load", lambda folder: {"base": made.model}[folder])
    monkeypatch.setitem(policy.TASKS, "sums", lambda tokenizer: made.task)
    rows = Sources(str(tmp_path), kept=tmp_path / "kept").rows(figures.grpo)
    assert len(only(rows, group="answer")) == 4 and [row["step"] for row in only(rows, group="curve")] == [0, 10]
    assert rows[0]["model"].startswith("tiny, ") and "50 % right become 50 %" in words(figures.grpo.drawn(rows))
