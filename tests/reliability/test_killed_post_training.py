"""Fine-tuning, reward models and GRPO, killed at any moment: the resumed run is the uninterrupted one, bit for bit."""

import json
import os
import random
import signal
import time

import pytest
from small_run import MODEL, forked, in_a_new_python, lines, quiet

import minids
from minids.backend import use_backend
from minids.checkpoint.latest import latest_checkpoint
from minids.checkpoint.tokenizer import byte_tokenizer
from minids.config.policy import PolicyConfig
from minids.config.reward import RewardConfig
from minids.config.sft import SFTConfig
from minids.model import DeepSeekV3
from minids.training import grpo, preferences, rewards, sft
from minids.training.rewards import Task

pytestmark = pytest.mark.slow
KILLS = 25


def even(question, answer):
    """The share of an answer's characters that have an even number."""
    return sum(ord(c) % 2 == 0 for c in answer) / max(len(answer), 1)


def start_or_resume(kind, out, folder):
    base, samples, pairs = folder / "base", folder / "samples.jsonl", folder / "pairs.jsonl"
    often = dict(save_every=1, log_every=1)
    module = {"sft": sft, "reward-model": preferences, "grpo": grpo}[kind]
    if (out / "run.json").exists():
        return module.resume(out, {}, quiet)
    if kind == "sft":
        return sft.start(out, base, samples, SFTConfig(context_length=32, batch_size=1, **often), quiet)
    if kind == "reward-model":
        return preferences.start(out, base, pairs, RewardConfig(batch_size=2, eval_every=4, **often), quiet)
    config = PolicyConfig(steps=8, questions=2, group=3, max_new_tokens=3, updates=2, beta=0.01, eval_questions=2, **often)
    return grpo.start(out, base, "sums", config, quiet)


def killed_again_and_again(kind, folder):
    model = DeepSeekV3(MODEL)
    model.tokenizer = byte_tokenizer()
    minids.save(model, folder / "base")
    rows = [{"prompt": f"{n} ", "answer": f"{2 * n}", "chosen": f"{2 * n}", "rejected": f"{n}"} for n in range(2, 20)]
    for name in ("samples", "pairs"):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    task = Task("sums", [[256, 50], [51, 52]], [[53]], even, ["\n"])  # an untrained model gets no sum right
    rewards.TASKS["sums"] = lambda tokenizer: task  # in this process, which is the test's own
    with use_backend("numpy"):
        start_or_resume(kind, folder / "whole", folder).run()
        began = time.perf_counter()
        start_or_resume(kind, folder / "timed", folder).run()
        seconds, rng, kills, runs = time.perf_counter() - began, random.Random(0), 0, 0
        while kills < KILLS:
            out = folder / f"killed-{runs}"
            runs += 1
            for _ in range(60):
                child = forked(lambda out=out: start_or_resume(kind, out, folder).run())
                if kills < KILLS:
                    time.sleep(rng.uniform(0, seconds))
                    os.kill(child, signal.SIGKILL)
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                if status == -signal.SIGKILL:
                    kills += 1
                    continue
                assert status == 0, f"a run ended by itself, or hung for a minute: exit code {status}"
                break
            else:
                raise AssertionError("killed 60 times, the run has not come to its end")
            assert lines(out) == lines(folder / "whole"), "metrics are torn, doubled or other numbers"
            ours, theirs = latest_checkpoint(out), latest_checkpoint(folder / "whole")
            names = [path.name for path in theirs.glob("*.safetensors")]
            assert "optimizer.safetensors" in names
            for name in names:
                assert (ours / name).read_bytes() == (theirs / name).read_bytes(), f"{name} differs"


@pytest.mark.parametrize("kind", ["sft", "reward-model", "grpo"])
def test_kills_at_any_moment_lose_nothing(kind, tmp_path):
    assert in_a_new_python(killed_again_and_again, kind, tmp_path) == 0, "see what it printed"
