"""Supervised fine-tuning: answers are learned and prompts are not, packing changes nothing, and broken data is named."""

import json

import numpy as np
import pytest
import small_run
import support

import minids
from minids.backend import use_backend
from minids.checkpoint.tokenizer import byte_tokenizer
from minids.cli import main
from minids.config.sft import SFTConfig
from minids.errors import MinidsError
from minids.model import IGNORE, DeepSeekV3
from minids.training import sft
from minids.training.samples import Sample, batches, encoded_samples, laid_out, read_json_lines, sequences

CONFIG = support.TINY.replace(num_nextn_predict_layers=1, aux_loss_alpha=0.0)
RNG = np.random.default_rng(0)
PAIRS = [
    (RNG.integers(0, 19, a).tolist(), RNG.integers(0, 19, b).tolist()) for a, b in [(3, 2), (1, 4), (5, 1), (2, 3), (4, 4)]
]


def quiet(line):
    pass


def samples(config=CONFIG, longest=12):
    return encoded_samples(DeepSeekV3(config), PAIRS, longest)


def test_every_sample_is_in_an_epoch_once_and_no_sequence_is_longer_than_it_may_be():
    found = samples()
    for seed in range(5):
        packed = sequences(found, 12, np.random.default_rng(seed))
        assert sorted(i for row in packed for i in row) == list(range(len(found)))
        assert all(sum(len(found[i].tokens) - 1 for i in row) <= 12 for row in packed) and len(packed) < len(found)
    steps = batches(found, 12, 2, 3, np.random.default_rng(0))
    assert sorted(i for rows in steps for row in rows for i in row) == sorted(3 * list(range(len(found))))
    assert all(len(rows) <= 2 for rows in steps)


def test_what_counts_is_the_answer_and_the_end():
    one, two = Sample(np.array([9, 3, 4, 7, 8]), 3), Sample(np.array([5, 6, 2]), 1)
    packed = laid_out([one, two], [[0, 1]], 8)
    assert packed.tokens.tolist() == [[9, 3, 4, 7, 5, 6, 0, 0]]
    assert packed.targets.tolist() == [[IGNORE, IGNORE, 7, 8, 6, 2, IGNORE, IGNORE]]
    assert packed.segments.tolist() == [[0, 0, 0, 0, 1, 1, -1, -1]]
    with_ends = encoded_samples(DeepSeekV3(CONFIG.replace(bos_token_id=17, eos_token_id=18)), [([1, 2], [3])], 8)
    assert with_ends[0].tokens.tolist() == [17, 1, 2, 3, 18] and with_ends[0].answer == 3


def test_a_packed_step_has_the_gradient_of_its_samples_alone():
    with use_backend("numpy"):
        model, found = support.build(CONFIG), samples()
        packed = laid_out(found, sequences(found, 12, np.random.default_rng(1)), 12)
        model.parameters.zero_grads()
        together = model.forward_backward(packed.tokens, packed.targets, segments=packed.segments)
        grads = model.parameters.grads.copy()
        model.parameters.zero_grads()
        counted = [len(s.tokens) - s.answer for s in found]
        losses = []
        for i, n in enumerate(counted):
            alone = laid_out(found, [[i]], len(found[i].tokens) - 1)
            losses.append(model.forward_backward(alone.tokens, alone.targets, weight=n / sum(counted)).main)
    support.assert_close(together.main, np.average(losses, weights=counted), 1e-10)
    support.assert_close(grads, model.parameters.grads, 1e-7)


@pytest.mark.parametrize("settings", [{}, {"mtp": False}, {"restart": False}], ids=str)
def test_answers_are_learned_and_the_rate_falls_along_a_cosine(settings):
    model = support.build(CONFIG, dtype=np.float32, lively=False)
    before = {name: bias.copy() for name, bias in model.parameters.buffers.items()}
    history = minids.sft(
        model, PAIRS, quiet, epochs=60, context_length=12, batch_size=2, learning_rate=0.02, warmup_steps=0, **settings
    )
    assert history[0]["loss"] > 2 and history[-1]["loss"] < 0.2
    rates = [line["learning_rate"] for line in history]
    assert rates[0] == max(rates) == 0.02 and rates[-1] == pytest.approx(0.004, rel=0.01)
    assert all(len(line["mtp_loss"]) == (settings.get("mtp", True)) for line in history)
    for prompt, answer in PAIRS:
        assert minids.generate(model, prompt, len(answer)).tolist() == answer
    assert all((model.parameters.buffers[name] == bias).all() for name, bias in before.items())


def test_the_same_seed_gives_the_same_bits_and_another_another_order():
    models = [support.build(CONFIG, dtype=np.float32) for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        minids.sft(model, PAIRS, quiet, context_length=12, batch_size=1, learning_rate=0.01, seed=seed)
    one, two, other = (model.parameters.values for model in models)
    assert (one == two).all() and (one != other).any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samples": "text"}, ["samples = 'text'", "pairs"]),
        ({"samples": []}, ["samples", "at least one"]),
        ({"samples": [("a", "b", "c")]}, ["samples[0]", "a prompt and its answer"]),
        ({"samples": [([1], [])]}, ["samples[0]", "answer is empty"]),
        ({"samples": [*PAIRS, ([1] * 9, [2] * 9)]}, ["samples[5]", "18 tokens", "context_length"]),
        ({"context_length": 65}, ["context_length = 65", "64"]),
        ({"epochs": 0}, ["epochs = 0", "at least 1"]),
        ({"lr": 1}, ["lr = 1", "learning_rate"]),
        ({"decay_to": 2.0}, ["decay_to = 2.0"]),
    ],
)
def test_bad_input_is_refused_in_one_line(changes, words):
    model = support.build(CONFIG, dtype=np.float32)
    before = model.parameters.values.copy()
    with pytest.raises(MinidsError) as refused:
        minids.sft(model, **({"samples": PAIRS, "say": quiet, "context_length": 12} | changes))
    assert all(word in str(refused.value) for word in words), refused.value
    assert "\n" not in str(refused.value) and (model.parameters.values == before).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"prompt": "a", "answer": "b"}\n{"prompt": ', ["line 2", "is not JSON"]),
        ('\n{"prompt": "a"}', ["line 2", "'answer'"]),
        ('{"prompt": 3, "answer": "b"}', ["line 1", "'prompt'"]),
        ("[1]", ["line 1", "'prompt'"]),
        ("\n \n", ["holds no line"]),
    ],
)
def test_a_broken_line_is_named(tmp_path, text, words):
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    with pytest.raises(MinidsError) as refused:
        read_json_lines(path)
    assert all(word in str(refused.value) for word in words), refused.value


def test_the_command_writes_a_model_that_gives_the_answers(tmp_path, capsys):
    model = DeepSeekV3(small_run.MODEL)
    model.tokenizer = byte_tokenizer()
    minids.save(model, tmp_path / "base")
    data = tmp_path / "pairs.jsonl"
    pairs = [{"prompt": "one ", "answer": "1"}, {"prompt": "two ", "answer": "2"}]
    data.write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
    command = ["sft", "--checkpoint", str(tmp_path / "base"), "--data", str(data), "--out", str(tmp_path / "tuned")]
    fast = ["--epochs", "60", "--learning-rate", "0.02", "--context-length", "16", "--batch-size", "1"]
    assert main([*command, *fast]) == 0
    assert "loss" in capsys.readouterr().out
    tuned = minids.load(tmp_path / "tuned")
    for pair in pairs:
        ids = [tuned.config.bos_token_id, *tuned.tokenizer.encode(pair["prompt"])]
        new = minids.generate(tuned, ids, 2)
        assert tuned.tokenizer.decode(new[:1]) == pair["answer"] and new[1] == tuned.config.eos_token_id
    assert main(command) == 2 and "holds a run already" in capsys.readouterr().err
    assert main(["sft", "--out", command[-1], "--resume"]) == 0
    capsys.readouterr()
    assert main(["sft", "--out", command[-1], "--resume", "--epochs", "3"]) == 2
    assert "epochs = 3: the run there has 60" in capsys.readouterr().err
    assert main(["grpo", "--out", command[-1], "--resume"]) == 2
    assert "minids sft --resume goes on" in capsys.readouterr().err
    data.write_text("{")
    assert main([*command[:-1], str(tmp_path / "other")]) == 2 and "line 1" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    for missing in ("checkpoint", "data"):
        at = command.index(f"--{missing}")
        assert main([*command[:at], *command[at + 2 :], "--overwrite"]) == 2
        assert f"say --{missing}" in capsys.readouterr().err


# With a folder.


@pytest.fixture
def base(tmp_path):
    model = DeepSeekV3(small_run.MODEL)
    model.tokenizer = byte_tokenizer()
    minids.save(model, tmp_path / "base")
    pairs = [{"prompt": f"{n} and {n}: ", "answer": f"{2 * n}.\n"} for n in range(12)]
    (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
    return tmp_path / "base"


RUN = SFTConfig(context_length=32, batch_size=2, learning_rate=1e-2, log_every=1, save_every=2)


def run_of(out, base, stop_after=None):
    there = (out / "run.json").exists()
    run = sft.resume(out, {}, quiet) if there else sft.start(out, base, base.parent / "pairs.jsonl", RUN, quiet)
    if stop_after is not None:
        learn = run.learn

        def learned(made):
            if run.step + 1 == stop_after:
                run.ask_to_stop()
            return learn(made)

        run.learn = learned
    run.run()
    return run


@pytest.mark.parametrize("stop", [1, 4, 5])
def test_a_resumed_run_has_the_bits_of_one_that_was_never_interrupted(tmp_path, base, stop):
    whole = run_of(tmp_path / "whole", base)
    assert whole.step == whole.steps == 6
    run_of(tmp_path / "parts", base, stop_after=stop)
    parts = run_of(tmp_path / "parts", base)
    assert (whole.model.parameters.values == parts.model.parameters.values).all()
    assert small_run.lines(tmp_path / "whole") == small_run.lines(tmp_path / "parts")
    for name in ("model.safetensors", "optimizer.safetensors"):
        files = [tmp_path / run / f"step-{whole.steps:06}" / name for run in ("whole", "parts")]
        assert files[0].exists() and files[0].read_bytes() == files[1].read_bytes()


def test_a_run_whose_process_died_goes_on_from_its_last_checkpoint(tmp_path, base):
    whole = run_of(tmp_path / "whole", base)
    run = sft.start(tmp_path / "dead", base, base.parent / "pairs.jsonl", RUN, quiet)
    learn = run.learn

    def dying(made):
        if run.step == 5:
            raise SystemExit  # nothing is saved on the way out
        return learn(made)

    run.learn = dying
    with pytest.raises(SystemExit):
        run.run()
    again = sft.resume(tmp_path / "dead", {}, quiet)
    assert again.step == 4
    again.run()
    assert (whole.model.parameters.values == again.model.parameters.values).all()
    assert small_run.lines(tmp_path / "whole") == small_run.lines(tmp_path / "dead")


def test_samples_may_move_and_may_not_change(tmp_path, base):
    run_of(tmp_path / "run", base, stop_after=1)
    data = base.parent / "pairs.jsonl"
    moved = data.rename(tmp_path / "moved.jsonl")
    with pytest.raises(MinidsError, match=r"data = .* cannot be read"):
        sft.resume(tmp_path / "run", {}, quiet)
    small_run.close(sft.resume(tmp_path / "run", {"data": str(moved)}, quiet))
    moved.write_text('{"prompt": "a", "answer": "b"}')
    with pytest.raises(MinidsError, match="holds other samples than the run began with"):
        sft.resume(tmp_path / "run", {"data": str(moved)}, quiet)


def test_the_settings_are_those_of_the_report():
    train = SFTConfig().as_training(100)
    assert (SFTConfig().epochs, train.decay_to, train.constant_until, train.decay_until) == (2, 0.2, 0.0, 1.0)


def test_who_listens_is_told_every_step(tmp_path, base):
    run, told = sft.start(tmp_path / "run", base, base.parent / "pairs.jsonl", RUN.replace(log_every=100), quiet), []
    run.on_step = told.append
    run.run()
    assert told == run.history and [line["step"] for line in told] == list(range(1, run.steps + 1))
