"""GRPO as a run: it learns what is rewarded, leaves alone what it must, resumes to the bit, and says what it cannot use."""

import json

import numpy as np
import pytest
import small_run
import support

import minids
from minids.backend import use_backend
from minids.checkpoint.tokenizer import byte_tokenizer
from minids.cli import main
from minids.config.policy import PolicyConfig
from minids.errors import MinidsError
from minids.model import DeepSeekV3
from minids.training import grpo, rewards
from minids.training.rewards import Task

CONFIG = support.TINY.replace(num_nextn_predict_layers=1)
QUESTIONS = [[3, 1, 4], [1, 5], [9]]
SMALL = dict(questions=3, group=4, max_new_tokens=4, warmup_steps=0, log_every=1)


def lucky(question, answer):
    """The share of an answer's tokens that are 7."""
    return np.mean(np.array(answer) == 7)


def quiet(line):
    pass


def learned(model, steps=3, reward=lucky, **settings):
    return minids.grpo(model, QUESTIONS, reward, steps=steps, say=quiet, **(SMALL | settings))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"by": "answer", "by_std": False},
        {"divisor": 4.0, "by_std": False},
        {"updates": 3, "beta": 0.01, "reference_every": 5, "drop_above": 0.05, "top_p": 0.95},
    ],
    ids=["V3.2", "as printed", "Dr. GRPO", "three updates, all repairs"],
)
def test_what_is_rewarded_becomes_likelier(settings):
    model = support.build(CONFIG, dtype=np.float32, lively=False)
    history = learned(model, steps=40, group=8, learning_rate=3e-2, **settings)
    first, last = (np.mean([line["reward"] for line in some]) for some in (history[:3], history[-3:]))
    assert first < 0.3 and last > 0.8, (first, last)
    assert [line["step"] for line in history] == list(range(1, 41))


def test_the_balancing_bias_stays_where_it_was():
    model = support.build(CONFIG, dtype=np.float32)
    before = {name: bias.copy() for name, bias in model.parameters.buffers.items()}
    learned(model)
    assert all((model.parameters.buffers[name] == bias).all() for name, bias in before.items())


def test_the_same_seed_gives_the_same_bits():
    runs = [support.build(CONFIG, dtype=np.float32) for _ in range(3)]
    histories = [learned(model, seed=seed) for model, seed in zip(runs, (0, 0, 1), strict=True)]
    one, two, other = (model.parameters.values for model in runs)
    assert (one == two).all() and (one != other).any()
    clock = ("seconds",)
    plain = [[{k: v for k, v in line.items() if k not in clock} for line in history] for history in histories]
    assert plain[0] == plain[1] != plain[2]


def test_with_the_experts_of_the_rollout_the_ratio_is_one_and_flips_are_told_without():
    kept, free = (support.build(CONFIG, dtype=np.float64) for _ in range(2))
    with use_backend("numpy"):
        assert all(line["drift"] < 1e-9 and "flipped" not in line for line in learned(kept))
        history = learned(free, keep_routing=False, updates=3, learning_rate=0.05)
    assert any(line["flipped"] > 0 for line in history), "moved weights must send some token elsewhere"
    assert all(layer.on_routing is None and layer.fixed_choice is None for layer in free.moe_layers)


def test_with_the_mask_of_the_rollout_the_ratio_is_one_and_without_it_is_not():
    kept, free = (support.build(CONFIG, dtype=np.float64) for _ in range(2))
    with use_backend("numpy"):
        assert all(line["drift"] < 1e-9 for line in learned(kept, top_p=0.7))
        assert all(line["drift"] > 1e-2 for line in learned(free, top_p=0.7, keep_mask=False))


def test_bad_answers_that_the_policy_has_left_are_dropped_and_the_share_is_told():
    model, other = (support.build(CONFIG, dtype=np.float32) for _ in range(2))
    history = learned(model, steps=6, updates=3, learning_rate=0.1, drop_above=0.01)
    assert any(0 < line["dropped"] < 0.7 for line in history)
    assert ", dropped " in grpo.in_words(next(line for line in history if line["dropped"]))
    assert all(line["dropped"] == 0 for line in learned(other, updates=3, learning_rate=0.1))


def test_texts_are_given_where_there_is_a_tokenizer_and_ids_where_there_is_none():
    seen = []

    def reward(question, answer):
        seen.append((question, answer))
        return len(seen) % 3

    model = DeepSeekV3(small_run.MODEL)
    model.tokenizer = byte_tokenizer()
    minids.grpo(model, ["ab", "c"], reward, steps=1, say=quiet, **(SMALL | {"questions": 2}))
    assert {question for question, _ in seen} == {"ab", "c"} and all(isinstance(answer, str) for _, answer in seen)
    seen.clear()
    learned(support.build(CONFIG, dtype=np.float32), steps=1, reward=reward)
    assert {tuple(question) for question, _ in seen} == set(map(tuple, QUESTIONS))
    assert all(type(token) is int for _, answer in seen for token in answer)


def test_held_out_questions_are_measured_before_and_after_without_moving_the_run():
    lines = []
    told, untold = (support.build(CONFIG, dtype=np.float32) for _ in range(2))
    minids.grpo(told, QUESTIONS, lucky, steps=3, held_out=[[2, 2]], say=lines.append, **SMALL)
    learned(untold)
    assert (told.parameters.values == untold.parameters.values).all()
    measured = [line for line in lines if "reward on" in line]
    assert [line.split(":")[0] for line in measured] == ["step 0", "step 3"]


# What cannot be used.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"group": 1}, ["group = 1", "at least 2"]),
        ({"temperature": 0}, ["temperature = 0", "above 0"]),
        ({"max_new_tokens": 100}, ["prompts", "the context is 64", "max_new_tokens"]),
        ({"by": "answer", "divisor": 3.0}, ["divisor = 3.0", "leave it out"]),
        ({"updates": 9}, ["updates = 9", "3 questions"]),
        ({"top_p": 0.0}, ["top_p = 0.0", "above 0"]),
        ({"top_p": 1.5}, ["top_p = 1.5", "at most 1"]),
        ({"drop_above": 0.1}, ["drop_above = 0.1", "updates = 2"]),
        ({"reference_every": 5}, ["reference_every = 5", "beta"]),
        ({"lr": 3}, ["lr = 3", "learning_rate"]),
        ({"reward": lambda q, a: "good"}, ["reward = 'good'", "finite number"]),
        ({"reward": lambda q, a: 1 / 0}, ["reward: ZeroDivisionError", "for the question"]),
        ({"reward": 3}, ["reward = 3", "function"]),
    ],
)
def test_bad_input_is_refused_in_one_line(changes, words):
    model = support.build(CONFIG, dtype=np.float32)
    before = model.parameters.values.copy()
    with pytest.raises(MinidsError) as refused:
        learned(model, **changes)
    assert all(word in str(refused.value) for word in words), refused.value
    assert "\n" not in str(refused.value) and (model.parameters.values == before).all()


def test_prompts_that_are_none_are_refused():
    model = support.build(CONFIG, dtype=np.float32)
    for prompts in ("text", [], 3, [[99]]):
        with pytest.raises(MinidsError):
            minids.grpo(model, prompts, lucky, say=quiet)


def test_a_task_without_contrast_is_said_in_words_with_the_share():
    model = support.build(CONFIG, dtype=np.float32)
    with pytest.raises(MinidsError, match=r"^task: all 30 groups of 4 .* \(share with contrast: 0 %, reward 0\.25\)"):
        learned(model, steps=50, reward=lambda q, a: 0.25)


# With a folder.


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A small untrained model in a folder, and a task that it gets right by chance."""
    model = DeepSeekV3(small_run.MODEL)
    model.tokenizer = byte_tokenizer()
    minids.save(model, tmp_path / "base")
    even = lambda question, answer: np.mean([ord(c) % 2 == 0 for c in answer] or [0])  # noqa: E731
    task = Task("sums", [[256, 50], [51, 52]], [[53]], even, ["\n"])
    monkeypatch.setitem(rewards.TASKS, "sums", lambda tokenizer: task)
    return tmp_path / "base"


RUN = PolicyConfig(
    steps=6, questions=2, group=3, max_new_tokens=3, log_every=1, save_every=2, eval_every=2, beta=0.01, updates=2
)


def run_of(out, base, stop_after=None):
    there = (out / "run.json").exists()
    run = grpo.resume(out, {}, quiet) if there else grpo.start(out, base, "sums", RUN, quiet)
    if stop_after is not None:
        answered = run.answered

        def asked():
            if run.step + 1 == stop_after:
                run.ask_to_stop()
            return answered()

        run.answered = asked
    run.run()
    return run


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_resumed_run_has_the_bits_of_one_that_was_never_interrupted(tmp_path, base, stop):
    whole = run_of(tmp_path / "whole", base)
    run_of(tmp_path / "parts", base, stop_after=stop)
    parts = run_of(tmp_path / "parts", base)
    assert (whole.model.parameters.values == parts.model.parameters.values).all()
    assert small_run.lines(tmp_path / "whole") == small_run.lines(tmp_path / "parts")
    for name in ("model.safetensors", "optimizer.safetensors", "reference.safetensors"):
        files = [tmp_path / run / "step-000006" / name for run in ("whole", "parts")]
        assert files[0].exists() and files[0].read_bytes() == files[1].read_bytes()


def test_a_reward_that_fails_on_the_way_loses_nothing(tmp_path, base, monkeypatch):
    whole = run_of(tmp_path / "whole", base)
    run = grpo.start(tmp_path / "failed", base, "sums", RUN, quiet)
    right, calls = run.task.reward, []

    def failing(question, answer):
        calls.append(answer)
        if len(calls) == 28:  # in the fourth step; the last checkpoint is of the second
            raise KeyError("no such answer")
        return right(question, answer)

    run.task = run.task._replace(reward=failing)
    with pytest.raises(MinidsError, match=r"^reward: KeyError: .* steps before are saved; --resume goes on"):
        run.run()
    again = run_of(tmp_path / "failed", base)
    assert (whole.model.parameters.values == again.model.parameters.values).all()


def test_the_command_learns_and_resumes_and_names_what_it_refuses(tmp_path, base, capsys):
    out = str(tmp_path / "run")
    small = ["--steps", "2", "--questions", "2", "--group", "3", "--max-new-tokens", "3", "--log-every", "1"]
    command = ["grpo", "--checkpoint", str(base), "--task", "sums", "--out", out, *small]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "% before" in said and "guesses of the MTP modules that stand" in said
    for word in ("reward ", "contrast ", "length ", "entropy ", "held-out", "step-000002", "minids chat"):
        assert word in said, word
    assert json.loads((tmp_path / "run" / "run.json").read_text())["kind"] == "grpo"
    assert main([*command]) == 2 and "holds a run already" in capsys.readouterr().err
    assert main(["grpo", "--out", out, "--resume"]) == 0
    assert main(["grpo", "--out", out, "--resume", "--steps", "2"]) == 0
    capsys.readouterr()
    assert main(["grpo", "--out", out, "--resume", "--group", "5"]) == 2
    assert "group = 5: the run there has 3" in capsys.readouterr().err
    assert main(["train", "--out", out, "--resume"]) == 2
    assert "minids grpo --resume goes on with it" in capsys.readouterr().err
    assert main(["grpo"]) == 2 and "--checkpoint" in capsys.readouterr().err


def test_a_run_of_training_is_no_run_of_grpo(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(MinidsError, match="holds no run of minids grpo"):
        grpo.resume(tmp_path / "run", {}, quiet)
