"""Reward models: the right gradient, a folder that comes back, rewards that do not depend on their neighbours, and resuming."""

import json
import math

import numpy as np
import pytest
import small_run
import support

import minids
from minids.backend import use_backend
from minids.checkpoint.tokenizer import byte_tokenizer
from minids.cli import main
from minids.config.policy import PolicyConfig
from minids.config.reward import RewardConfig
from minids.errors import MinidsError
from minids.model import IGNORE, DeepSeekV3, routing_fixed
from minids.training import grpo, preferences, rewards
from minids.training.preferences import PairObjective, accuracy, divided, measured
from minids.training.reward_model import RewardModel, padded
from minids.training.rewards import Task

CONFIG = support.TINY.replace(num_nextn_predict_layers=1)
RNG = np.random.default_rng(0)


def quiet(line):
    pass


def a_pair(rng):
    """A prompt, an answer with a 7 in it and one without."""
    prompt, chosen, rejected = (rng.integers(0, 7, rng.integers(2, 6)).tolist() for _ in range(3))
    chosen[rng.integers(len(chosen))] = 7
    return prompt, chosen, rejected


PAIRS = [a_pair(RNG) for _ in range(60)]


def a_reward(dtype=np.float64, **changes):
    """A reward model whose head is not zero."""
    reward = RewardModel.copy_of(support.build(CONFIG.replace(**changes), dtype=dtype))
    head = reward.model.head.weight.value
    head[...] = np.random.default_rng(1).normal(size=head.shape)
    return reward


# What it computes.


def test_a_copy_begins_with_the_weights_and_biases_of_its_model_and_rewards_of_zero():
    base = support.build(CONFIG)
    before = base.parameters.values.copy()
    reward = RewardModel.copy_of(base)
    for p in reward.model.parameters:
        if p.name != "score.weight":
            assert (p.value == base.parameters[p.name].value).all(), p.name
    for name, bias in reward.model.parameters.buffers.items():
        assert bias.any() and (bias == base.parameters.buffers[name]).all()
    assert not reward.model.mtp and "lm_head.weight" not in reward.model.parameters
    assert all(reward(prompt, chosen) == 0.0 for prompt, chosen, _ in PAIRS[:3])
    reward.model.parameters.values += 1
    assert (base.parameters.values == before).all(), "the model itself is left alone"


def test_the_reward_is_the_heads_product_with_the_last_tokens_state():
    reward = a_reward(bos_token_id=17, eos_token_id=18)
    tokens = np.array([[17, 1, 2, 3, 18]])
    state = reward.model.hidden_states(tokens)[0][0, -1]
    assert math.isclose(reward([1, 2], [3]), float(reward.model.head.weight.value[0] @ state), rel_tol=1e-12)
    for prompt, answer in (([17, 1, 2], [3]), ([1, 2], [3, 18])):  # what is there already is not added
        assert reward(prompt, answer) == reward([1, 2], [3])


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_answers_side_by_side_are_worth_what_each_is_alone(backend):
    with use_backend(backend):
        reward = a_reward()
        asked = [(prompt, chosen) for prompt, chosen, _ in PAIRS[:40]]
        np.testing.assert_allclose(reward.scores(asked), [reward(*pair) for pair in asked], rtol=1e-9)
    assert len(reward.scores([])) == 0


def test_equal_answers_are_worth_the_same_bits_wherever_they_stand():
    reward = a_reward(dtype=np.float32)
    asked = [(prompt, chosen) for prompt, chosen, _ in PAIRS]
    found = reward.scores([asked[0], *asked[1:], asked[0]])
    assert found[0] == found[-1] and len(set(found)) > 50


def test_padding_comes_after_every_text():
    ((tokens, last),) = padded([np.array([4, 5, 6]), np.array([7])], 2)
    assert tokens.tolist() == [[4, 5, 6], [7, 0, 0]] and last.tolist() == [2, 3]


def test_the_gradient_by_every_parameter_is_that_of_central_differences():
    with use_backend("numpy"):
        reward = a_reward()
        model = reward.model
        pairs = divided(reward, PAIRS[:4], RewardConfig(validation_share=0.0)).learned
        ((tokens, last),) = padded([p.chosen for p in pairs] + [p.rejected for p in pairs], 8)
        nowhere = np.full_like(tokens, IGNORE)
        objective = PairObjective(last)
        choices = [s.routing.chosen for s in model.forward(tokens, nowhere, mtp=False, objective=objective)[1].moe]

        def loss() -> float:
            with routing_fixed(model, choices):
                return model.forward(tokens, nowhere, mtp=False, objective=objective)[0].total

        model.parameters.zero_grads()
        with routing_fixed(model, choices):
            model.forward_backward(tokens, nowhere, mtp=False, objective=objective)
        assert support.worst_slope(loss, model.parameters) < 1e-6
    assert model.head.weight.grad.any() and model.embed_tokens.weight.grad.any()


def test_half_of_a_tie_is_right():
    assert accuracy(np.array([1.0, 2.0, 3.0, 0.0]), np.array([1.0, 1.0, 4.0, -1.0])) == 0.625


# What it learns.


def test_what_was_preferred_is_learned_and_holds_for_prompts_that_were_held_out():
    base = support.build(CONFIG, dtype=np.float32, lively=False)
    biases = {name: bias.copy() for name, bias in base.parameters.buffers.items()}
    said = []
    reward = minids.reward_model(base, PAIRS, said.append, epochs=12, batch_size=8, learning_rate=2e-2, validation_share=0.2)
    assert math.isclose(reward.history[0]["loss"], math.log(2), rel_tol=1e-6), "all rewards are 0 at first"
    assert reward.history[-1]["loss"] < 0.1 and reward.history[-1]["accuracy"] == 1.0
    assert "12 pairs held out" in said[0] and "step 0: on 12 held-out pairs: loss 0.693, accuracy 50 %" in said[1]
    rng = np.random.default_rng(5)
    new = divided(reward, [a_pair(rng) for _ in range(50)], RewardConfig(validation_share=0.0)).learned
    assert measured(reward, new)["accuracy"] > 0.85
    for name, bias in reward.model.parameters.buffers.items():
        assert (bias == biases[name]).all(), "the balancing bias stays where it was"


def test_the_same_seed_gives_the_same_bits_and_another_another_order():
    base = support.build(CONFIG, dtype=np.float32)
    made = [minids.reward_model(base, PAIRS, quiet, seed=seed, batch_size=8) for seed in (0, 0, 1)]
    one, two, other = (reward.model.parameters.values for reward in made)
    assert (one == two).all() and (one != other).any()
    assert made[0].sha256 == made[1].sha256 != made[2].sha256


def test_pairs_of_a_prompt_are_held_out_together():
    reward = a_reward()
    triples = [([n % 5], [10, n], [11, n]) for n in range(15)]
    pairs = divided(reward, triples, RewardConfig(validation_share=0.4))
    sides = [{int(pair.chosen[0]) for pair in side} for side in pairs]
    assert list(map(len, pairs)) == [9, 6] and not sides[0] & sides[1]


# Its folder.


def test_a_folder_gives_every_bit_back_and_says_what_it_is(tmp_path):
    reward = a_reward(dtype=np.float32)
    reward.save(tmp_path)
    again = RewardModel.load(tmp_path)
    assert (again.model.parameters.values == reward.model.parameters.values).all() and again.sha256 == reward.sha256
    for name, bias in reward.model.parameters.buffers.items():
        assert (again.model.parameters.buffers[name] == bias).all()
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["architectures"] == ["DeepseekV3ForSequenceClassification"] and described["id2label"] == {"0": "reward"}
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert [name for name, file in index.items() if file == "reward_head.safetensors"] == ["score.weight"]


def test_a_model_and_a_reward_model_are_not_taken_for_each_other(tmp_path):
    a_reward(dtype=np.float32).save(tmp_path / "reward")
    with pytest.raises(MinidsError, match="is a reward model, which writes no text"):
        minids.load(tmp_path / "reward")
    minids.save(support.build(CONFIG, dtype=np.float32), tmp_path / "model")
    with pytest.raises(MinidsError, match="is no reward model; minids reward-model makes one"):
        RewardModel.load(tmp_path / "model")
    (tmp_path / "reward" / "reward_head.safetensors").unlink()
    with pytest.raises(MinidsError, match=r"reward_head\.safetensors is missing"):
        RewardModel.load(tmp_path / "reward")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pairs": "text"}, ["pairs = 'text'", "chosen"]),
        ({"pairs": []}, ["pairs", "at least one"]),
        ({"pairs": [("a", "b")]}, ["pairs[0]", "the rejected one"]),
        ({"pairs": [*PAIRS, ([1], [2], [2])]}, ["pairs[60]", "the same answer"]),
        ({"pairs": [([1] * 60, [2] * 9, [3])]}, ["pairs[0]", "69 tokens", "64"]),
        ({"pairs": [([1], [2], [99])]}, ["99"]),
        ({"pairs": [([1], [2], [3])], "validation_share": 0.6}, ["validation_share = 0.6", "1 prompts"]),
        ({"validation_share": 1.0}, ["validation_share = 1.0", "below 1"]),
        ({"epochs": 0}, ["epochs = 0", "at least 1"]),
        ({"lr": 1}, ["lr = 1", "learning_rate"]),
        ({"decay_to": 2.0}, ["decay_to = 2.0"]),
        ({"say": 3}, ["say = 3"]),
        ({"model": 3}, ["model = 3"]),
    ],
)
def test_bad_input_is_refused_in_one_line(changes, words):
    base = support.build(CONFIG, dtype=np.float32)
    with pytest.raises(MinidsError) as refused:
        minids.reward_model(**({"model": base, "pairs": PAIRS, "say": quiet} | changes))
    assert all(word in str(refused.value) for word in words), refused.value
    assert "\n" not in str(refused.value)


# A run with a folder, and what learns from it.


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A small untrained model, pairs of answers to a sum of which the even one was preferred, and a task."""
    model = DeepSeekV3(small_run.MODEL)
    model.tokenizer = byte_tokenizer()
    minids.save(model, tmp_path / "base")
    pairs = [{"prompt": f"{n} and {n}: ", "chosen": f"{2 * n}", "rejected": f"{2 * n + 1}"} for n in range(16)]
    (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
    task = Task("sums", [[256, 50], [51, 52]], [[53]], lambda question, answer: len(answer), ["\n"])
    monkeypatch.setitem(rewards.TASKS, "sums", lambda tokenizer: task)
    return tmp_path / "base"


RUN = RewardConfig(epochs=2, batch_size=4, learning_rate=1e-2, log_every=1, save_every=2, eval_every=3)


def run_of(out, base, stop_after=None):
    there = (out / "run.json").exists()
    run = preferences.resume(out, {}, quiet) if there else preferences.start(out, base, base.parent / "pairs.jsonl", RUN, quiet)
    if stop_after is not None:
        learn = run.learn

        def learned(made):
            if run.step + 1 == stop_after:
                run.ask_to_stop()
            return learn(made)

        run.learn = learned
    run.run()
    return run


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_resumed_run_has_the_bits_of_one_that_was_never_interrupted(tmp_path, base, stop):
    whole = run_of(tmp_path / "whole", base)
    assert whole.step == whole.steps == 8
    run_of(tmp_path / "parts", base, stop_after=stop)
    parts = run_of(tmp_path / "parts", base)
    assert whole.reward.sha256 == parts.reward.sha256 == RewardModel.load(tmp_path / "parts").sha256
    assert small_run.lines(tmp_path / "whole") == small_run.lines(tmp_path / "parts")
    for name in ("model-00001-of-00001.safetensors", "reward_head.safetensors", "optimizer.safetensors"):
        files = [tmp_path / run / "step-000008" / name for run in ("whole", "parts")]
        assert files[0].exists() and files[0].read_bytes() == files[1].read_bytes()


def test_the_command_trains_resumes_and_names_the_line_that_is_broken(tmp_path, base, capsys):
    data, out = base.parent / "pairs.jsonl", str(tmp_path / "reward")
    command = ["reward-model", "--checkpoint", str(base), "--data", str(data), "--out", out]
    assert main([*command, "--batch-size", "4", "--log-every", "1"]) == 0
    said = capsys.readouterr().out
    for word in ("14 pairs", "2 pairs held out", "step 0: on 2 held-out pairs: loss 0.693, accuracy 50 %", "accuracy"):
        assert word in said, word
    assert f"minids grpo --checkpoint {base} --reward-model {out}" in said
    assert main(["reward-model", "--out", out, "--resume"]) == 0
    capsys.readouterr()
    assert main(["reward-model", "--out", out, "--resume", "--batch-size", "3"]) == 2
    assert "batch_size = 3: the run there has 4" in capsys.readouterr().err
    assert main(["sft", "--out", out, "--resume"]) == 2
    assert "minids reward-model --resume goes on" in capsys.readouterr().err
    assert main(["chat", "--checkpoint", out]) == 2 and "is a reward model" in capsys.readouterr().err
    for text, words in (
        ('\n{"prompt": "a", "chosen": "b"}', "line 2: has no text called 'rejected'"),
        (
            '{"prompt": "a", "chosen": "b", "rejected": "c"}\n\n{"prompt": "a", "chosen": "b", "rejected": "b"}',
            "line 3: chosen",
        ),
        ("{", "line 1: is not JSON"),
    ):
        data.write_text(text)
        assert main([*command[:-1], str(tmp_path / "other")]) == 2
        error = capsys.readouterr().err
        assert f"{data}: {words}" in error and error.count("\n") == 1
        assert not (tmp_path / "other").exists()


def test_grpo_learns_from_a_reward_model_and_resumes_with_the_same_one_only(tmp_path, base, capsys):
    run_of(tmp_path / "reward", base)
    small = ["--steps", "3", "--questions", "2", "--group", "3", "--max-new-tokens", "3", "--log-every", "1"]
    judge = ["--reward-model", str(tmp_path / "reward")]
    command = ["grpo", "--checkpoint", str(base), *small, "--out", str(tmp_path / "run")]
    assert main([*command, *judge]) == 0
    assert "one answer by the task's own rule" in capsys.readouterr().out
    described = json.loads((tmp_path / "run" / "run.json").read_text())["task"]
    assert described["reward_model"] == judge[1] and len(described["weights_sha256"]) == 64
    assert main(["grpo", "--out", str(tmp_path / "run"), "--resume", *judge]) == 0
    capsys.readouterr()
    assert main(["grpo", "--out", str(tmp_path / "run"), "--resume", "--reward-model", "else"]) == 2
    assert "reward_model = 'else': the run there has" in capsys.readouterr().err
    RewardModel.copy_of(minids.load(base)).save(tmp_path / "changed")
    for old in (tmp_path / "reward").iterdir():
        old.rename(tmp_path / f"old-{old.name}")
    (tmp_path / "reward").rmdir()
    (tmp_path / "changed").rename(tmp_path / "reward")
    assert main(["grpo", "--out", str(tmp_path / "run"), "--resume"]) == 2
    assert "has other weights than the run began with" in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "none"), "--reward-model", str(base)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("minids: reward_model: ") and "is no reward model" in error and not (tmp_path / "none").exists()


def test_answers_that_a_reward_model_likes_become_likelier():
    base = support.build(CONFIG, dtype=np.float32, lively=False)
    reward = minids.reward_model(base, PAIRS, quiet, epochs=12, batch_size=8, learning_rate=2e-2, validation_share=0.0)
    small = dict(questions=3, group=8, max_new_tokens=4, warmup_steps=0, learning_rate=3e-2)
    history = minids.grpo(base, [[3, 1, 4], [1, 5], [2]], reward, steps=25, say=quiet, **small)
    first, last = (np.mean([line["reward"] for line in some]) for some in (history[:3], history[-3:]))
    assert last > first + 1, (first, last)
    answers = minids.generate_batch(base, [[3, 1, 4], [1, 5]], 4, temperature=1.0)
    assert all(7 in answer for answer in answers), "it was taught that answers with a 7 are preferred"


def test_a_text_beyond_the_reward_models_context_is_refused_before_anything_is_learned(tmp_path, base):
    short = DeepSeekV3(small_run.MODEL.replace(max_position_embeddings=6))
    short.tokenizer = byte_tokenizer()
    RewardModel.copy_of(short).save(tmp_path / "short")
    config = PolicyConfig(steps=1, max_new_tokens=4)
    with pytest.raises(MinidsError, match=r"reward_model = .* does not fit into its context of 6; lower max_new_tokens"):
        grpo.start(tmp_path / "run", base, "sums", config, quiet, reward_model=tmp_path / "short")
    assert not (tmp_path / "run").exists()
