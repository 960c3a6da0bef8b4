"""Answers that ranks share are those of one process."""

import numpy as np
import pytest
from several_ranks import mpiexec, on_ranks
from small_run import MODEL

import minids
from minids.config import ParallelConfig
from minids.inference.generate import checked_ending
from minids.model import DeepSeekV3
from minids.parallel.group import process_group
from minids.training.metrics import read_metrics

pytestmark = pytest.mark.parallel
NEXT = [3]  # how many numbers are looked at of the generator afterwards


def answered(questions: int, seed: int) -> dict:
    """Some answers, each of its own length, and what the generator gives next."""
    config = MODEL.replace(vocab_size=12, bos_token_id=None, eos_token_id=None, initializer_range=0.3)
    model, rng = DeepSeekV3(config, seed=2, dtype=np.float64), np.random.default_rng(seed)
    asked = [[1 + i % 5, 2, 3][: 1 + i % 3] for i in range(questions)]
    ending = checked_ending(model, 9, [4, 5])
    group = process_group(ParallelConfig())
    found = group.sampled(model, asked, 3, 9, 1.0, ending, rng)
    arrays = {name: value for name, value in found._asdict().items() if name != "chosen" and value is not None}
    lists = {name: array.tolist() for name, array in arrays.items()}
    return lists | {"chosen": [layer.tolist() for layer in found.chosen], "next": rng.random(NEXT[0]).tolist()}


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("questions", [5, 2], ids=["five questions", "two, fewer than ranks"])
def test_answers_shared_are_the_answers_of_one_process(ranks, questions):
    (one,) = [answered(questions, seed=7)]
    assert len(set(one["lengths"])) > 2, "all answers are as long"
    for several in on_ranks(ranks, answered, questions, 7):
        assert several.keys() == one.keys()
        assert several["log_probs"] == pytest.approx(one["log_probs"], rel=1e-9)
        for name in one.keys() - {"log_probs"}:
            assert several[name] == one[name], name


GRADED = """
import sys
from minids.cli import main
from minids.training.grpo import TASKS
sums = TASKS["sums"]
TASKS["sums"] = lambda tokenizer: sums(tokenizer)._replace(reward=lambda question, answer: sum(map(ord, answer)) % 97 / 97)
sys.exit(main(sys.argv[1:]))
"""  # minids, with a reward that an untrained model gets by grades


def test_a_run_of_grpo_is_shared_written_once_and_goes_on(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24, "moe_intermediate_size": 8}
    minids.train(tmp_path / "base", steps=2, say=lambda line: None, eval_tokens=64, batch_size=2, workers=1, **sizes)
    options = ["--questions", "4", "--group", "2", "--max-new-tokens", "6", "--eval-questions", "4", "--log-every", "1"]
    command = ["-c", GRADED, "grpo", "--checkpoint", "base", "--steps", "2", *options]
    for ranks in (1, 3):
        done = mpiexec(ranks, *command, "--out", str(ranks), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    one, three = (read_metrics(tmp_path / out / "metrics.jsonl") for out in ("1", "3"))
    assert len(one) == len(three) == 4  # two steps, and what was held out before and after
    for a, b in zip(one, three, strict=True):
        a, b = a.get("held_out", a), b.get("held_out", b)
        for name in a.keys() - {"seconds", "drift"}:  # drift is what rounding makes of the same weights
            assert b[name] == pytest.approx(a[name], rel=1e-4), name
    again = mpiexec(2, "-c", GRADED, "grpo", "--out", "3", "--resume", cwd=tmp_path)
    assert again.returncode == 0 and "after step 2 of 2" in again.stdout, again.stderr
