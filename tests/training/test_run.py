"""A whole run on a small text: same seed same bits, resume as if never stopped, the bias moved as the paper says."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_run
from small_run import MODEL, at_step, close, lines, quiet, stop_after, write_text

import minids
from minids.checkpoint.latest import latest_checkpoint
from minids.errors import MinidsError
from minids.lab.analysis.routing_trace import RoutingTrace, record, traces
from minids.training import exam
from minids.training.loop import training_steps
from minids.training.metrics import read_metrics
from minids.training.run import Run
from minids.training.schedule import learning_rate

RUN = small_run.RUN.replace(steps=12, gradient_accumulation_steps=2, eval_every=6, save_every=4, workers=2)


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text").mkdir()
    write_text(tmp_path / "text")
    return [str(tmp_path / "text")]


def start(out, text, model=MODEL, run=RUN, say=quiet):
    return Run.start(out, model, run, text, "tiny", say)


def test_fifty_steps_twice_give_identical_losses(tmp_path, text):
    run = RUN.replace(steps=50, gradient_accumulation_steps=1, save_every=50, eval_every=50)
    for name in ("a", "b"):
        start(tmp_path / name, text, run=run).run()
    a, b = lines(tmp_path / "a"), lines(tmp_path / "b")
    assert len(a) == 52 and a == b
    assert a[-2]["main_loss"] < 0.7 * a[1]["main_loss"], "the loss did not fall"


def test_another_seed_gives_another_run(tmp_path, text):
    start(tmp_path / "a", text).run()
    start(tmp_path / "b", text, run=RUN.replace(seed=1)).run()
    assert lines(tmp_path / "a") != lines(tmp_path / "b")


@pytest.mark.parametrize(("step", "optimizer"), [(1, "adamw"), (5, "adamw"), (8, "adamw"), (11, "adamw"), (5, "muon")])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, text, step, optimizer):
    run = RUN.replace(optimizer=optimizer)
    start(tmp_path / "whole", text, run=run).run()
    said = []
    training = start(tmp_path / "parts", text, run=run, say=said.append)
    stop_after(training, step)
    training.run()
    assert "--resume" in said[-1]
    assert latest_checkpoint(tmp_path / "parts").name == f"step-{step:06d}"
    Run.resume(tmp_path / "parts", say=quiet).run()
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")
    for name in ("model.safetensors", "mtp.safetensors", "optimizer.safetensors"):
        whole, parts = ((tmp_path / run / "step-000012" / name).read_bytes() for run in ("whole", "parts"))
        assert whole == parts, f"{name} differs"


def test_a_run_killed_between_checkpoints_loses_only_the_steps_since(tmp_path, text):
    start(tmp_path / "whole", text).run()
    training = start(tmp_path / "killed", text)

    def kill():
        raise MemoryError("killed")

    at_step(training, 8, kill)  # after the checkpoint of step 4 and the metrics of step 7
    with pytest.raises(MemoryError):
        training.run()
    again = Run.resume(tmp_path / "killed", say=quiet)
    assert again.step == 4
    again.run()
    assert lines(tmp_path / "whole") == lines(tmp_path / "killed")


def test_evaluation_and_samples_leave_model_bias_and_data_as_they_are(tmp_path, text):
    training = start(tmp_path / "run", text)
    next(training_steps(training.model, training.optimizer, training.batches, RUN, training.workers))
    before = (
        training.model.parameters.values.copy(),
        [layer.bias.copy() for layer in training.model.moe_layers],
        json.dumps(training.batches.state()),
    )
    training.validate()
    training.show_samples("now")
    assert np.array_equal(before[0], training.model.parameters.values)
    assert all(np.array_equal(b, layer.bias) for b, layer in zip(before[1], training.model.moe_layers, strict=True))
    assert before[2] == json.dumps(training.batches.state())


@pytest.mark.parametrize("balance", ["aux_loss", "none"])
def test_without_bias_balancing_the_bias_stays_zero(tmp_path, text, balance):
    training = start(tmp_path / "run", text, MODEL.replace(balance=balance))
    training.run()
    assert all(not layer.bias.any() for layer in training.model.moe_layers)


def test_the_checkpoint_opens_and_gives_the_trained_model(tmp_path, text):
    training = start(tmp_path / "run", text)
    folder = training.run()
    tokens = np.arange(20)[None] + 65
    for place in (folder, tmp_path / "run"):
        model = minids.load(place)
        assert np.array_equal(model.logits(tokens), training.model.logits(tokens))
        assert model.tokenizer.decode(model.tokenizer.encode("Grüße")) == "Grüße"


def test_bpe_trains_on_the_training_documents(tmp_path, text):
    training = start(tmp_path / "run", text, run=RUN.replace(tokenizer="bpe", bpe_vocab_size=300, steps=2))
    training.run()
    assert training.model.config.vocab_size == training.tokenizer.vocab_size > 258
    found = [line["validation"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "validation" in line]
    numbers = found[0]["text"]
    per_token = numbers["loss"] / math.log(2)
    assert numbers["bits_per_byte"] < per_token, "tokens of several bytes cost fewer bits per byte than per token"


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"learning_rate": 0.5}, "learning_rate = 0.5"), ({"n_group": 2}, "n_group = 2"), ({"data": ["other"]}, "data")],
)
def test_resuming_with_other_settings_names_the_difference(tmp_path, text, asked, message):
    start(tmp_path / "run", text).run()
    with pytest.raises(MinidsError, match=message):
        Run.resume(tmp_path / "run", asked, quiet)


def test_resuming_with_a_changed_text_is_refused(tmp_path, text):
    start(tmp_path / "run", text).run()
    with open(tmp_path / "text" / "rhyme.txt", "a") as file:
        file.write("a line more")
    with pytest.raises(MinidsError, match="not what this run began with"):
        Run.resume(tmp_path / "run", say=quiet)


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_and_parameter(tmp_path, text):
    training = start(tmp_path / "run", text, run=RUN.replace(workers=1))
    at_step(training, 6, lambda: training.model.embed_tokens.weight.value.fill(np.inf))
    said = r"step 6: loss = nan.*began here: the weight model.embed_tokens.weight.*Last good checkpoint: .*step-000004"
    with pytest.raises(MinidsError, match=said):
        training.run()


def test_a_gradient_that_is_no_number_reaches_no_weight(tmp_path, text):
    training = start(tmp_path / "run", text, run=RUN.replace(workers=1))
    step = training.optimizer.step

    def spoilt(rate, workers):
        if training.step == 5:
            training.model.parameters["lm_head.weight"].grad[0, 0] = np.inf
        return step(rate, workers)

    training.optimizer.step = spoilt
    with pytest.raises(MinidsError, match=r"step 6: .*the gradient of lm_head.weight is not finite"):
        training.run()
    assert np.isfinite(training.model.parameters.values).all()


def test_a_loss_that_explodes_stops_the_run(tmp_path, text):
    training = start(tmp_path / "run", text)
    take = training.workers.forward_backward
    training.workers.forward_backward = lambda *args: take(*args)._replace(main=20.0)
    with pytest.raises(MinidsError, match=r"step 1: .*the loss exploded.*initializer_range = 0.02 .*no checkpoint yet"):
        training.run()  # before any update no learning rate can have done it
    training = start(tmp_path / "later", text)
    later = training.workers.forward_backward
    training.workers.forward_backward = lambda *args: later(*args)._replace(**{"main": 20.0} if training.step == 1 else {})
    with pytest.raises(MinidsError, match=r"step 2: .*the loss exploded.*lower learning_rate than 0.01"):
        training.run()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (dict(initializer_range=1e300), r"step 0: validation on '\w+': loss = nan\. .* initializer_range = 1e\+300"),
        (dict(routed_scaling_factor=1e300), "step 0: validation on .*: loss = nan"),
        (dict(aux_loss_alpha=1e300), r"step 1: loss = .*e\+300, .*it began here: the gradient of"),
    ],
)
def test_numbers_beyond_all_others_are_said_in_a_line_without_warnings(wrong, line, workers, tmp_path, text):
    training = start(tmp_path / "run", text, MODEL.replace(**wrong), RUN.replace(workers=workers))
    with pytest.raises(MinidsError, match=line):
        training.run()


def test_a_run_stopped_before_its_first_checkpoint_begins_again_and_is_the_same(tmp_path, text):
    start(tmp_path / "whole", text).run()
    training = start(tmp_path / "early", text)
    training.metrics.write({"step": 0, "note": "written before the end came"})
    training.folder.unlock()
    Run.resume(tmp_path / "early", say=quiet).run()
    assert lines(tmp_path / "whole") == lines(tmp_path / "early")


def test_another_backend_and_other_threads_are_said_and_what_it_means(tmp_path, text):
    training = start(tmp_path / "run", text)
    stop_after(training, 4)
    training.run()
    said = []
    with minids.use_backend("numpy"):
        again = Run.resume(tmp_path / "run", {"workers": 1}, said.append)
        again.run()
    assert any(line.startswith("workers was 2, is 1: ") and "not to the bit" in line for line in said)
    assert any(line.startswith("backend was numba, is numpy: ") and "not to the bit" in line for line in said)
    assert again.step == RUN.steps


def test_a_second_process_is_refused_while_the_first_trains(tmp_path, text):
    training = start(tmp_path / "run", text)
    with pytest.raises(MinidsError, match=r"out = .*another process \(\d+\) trains here"):
        Run.resume(tmp_path / "run", say=quiet)
    training.run()
    Run.resume(tmp_path / "run", say=quiet)  # the first has ended


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_is_there(tmp_path, text):
    start(tmp_path / "run", text).run()
    weights = tmp_path / "run" / "step-000012" / "model.safetensors"
    weights = weights if weights.exists() else next((tmp_path / "run" / "step-000012").glob("model*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    with pytest.raises(MinidsError, match="is not what was written"):
        minids.load(tmp_path / "run")
    minids.load(tmp_path / "run" / "step-000008")


def test_nothing_is_left_behind_when_a_run_cannot_begin(tmp_path, text):
    with pytest.raises(MinidsError, match="context_length = 512"):
        start(tmp_path / "run", text, run=RUN.replace(context_length=512).replace(validation_share=0.9))
    assert not (tmp_path / "run").exists()


def test_traces_of_the_routing_lie_beside_the_run_and_do_not_change_it(tmp_path, text):
    start(tmp_path / "a", text).run()
    traced = start(tmp_path / "b", text, run=RUN.replace(trace_every=5))
    traced.observers.append(record)
    traced.run()
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    found = [RoutingTrace.load(path) for path in traces(tmp_path / "b")]
    assert [one.step for one in found] == [0, 5, 10]
    tokens = RUN.batch_size * RUN.gradient_accumulation_steps
    for one in found:
        assert one.tokens.shape == (tokens, 16) and one.domains == ("text",) and (one.domain == 0).all()
        assert [layer.chosen.shape[1] for layer in one.layers] == [16, 15]
    assert not found[0].layers[0].bias.any() and found[1].layers[0].bias.any()
    assert found[1].counts()[0].max() / found[1].counts()[0].mean() - 1 == pytest.approx(
        lines(tmp_path / "a")[6]["max_vio"][0], abs=1e-3
    ), "the trace of step 5 is that of the sixth step's batch"


def test_a_resumed_run_goes_on_with_its_traces(tmp_path, text):
    run = RUN.replace(trace_every=3)
    for name, stops in (("whole", ()), ("parts", (5,))):
        training = start(tmp_path / name, text, run=run)
        for step in stops:
            stop_after(training, step)
            training.observers.append(record)
            training.run()
            training = Run.resume(tmp_path / name, say=quiet)
        training.observers.append(record)
        training.run()
    whole, parts = (traces(tmp_path / name) for name in ("whole", "parts"))
    assert [path.name for path in whole] == [path.name for path in parts] == [f"step-{n:06d}.npz" for n in (0, 3, 6, 9)]
    for a, b in zip(whole, parts, strict=True):
        a, b = np.load(a), np.load(b)
        assert a.files == b.files and all(np.array_equal(a[name], b[name]) for name in a.files)


def test_traces_that_nobody_would_record_are_refused(tmp_path, text):
    with pytest.raises(MinidsError, match="trace_every = 5: nothing records: add"):
        start(tmp_path / "run", text, run=RUN.replace(trace_every=5)).run()


def test_characters_without_begin_and_end_tokens_train_sample_and_resume(tmp_path, text):
    said = []
    training = start(tmp_path / "run", text, run=RUN.replace(tokenizer="chars", sample_every=6), say=said.append)
    assert training.model.config.vocab_size == len(set("one, two, three, four, five; once I caught a fish alive.\n"))
    training.run()
    assert any("after 6 steps" in line for line in said)
    again = Run.resume(tmp_path / "run", say=quiet)
    assert again.tokenizer.encode("fish").tolist() == training.tokenizer.encode("fish").tolist()


# What ends a run, and what was lost of its folder.


def test_a_run_whose_pointer_is_lost_goes_on_from_its_newest_checkpoint(tmp_path, text):
    start(tmp_path / "whole", text).run()
    training = start(tmp_path / "run", text)
    stop_after(training, 9)
    training.run()
    (tmp_path / "run" / "latest").unlink()
    said = []
    again = Run.resume(tmp_path / "run", say=said.append)
    assert again.step == 9 and "latest is missing: going on from step-000009" in said[0]
    again.run()
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")


def test_behind_a_damaged_checkpoint_the_one_before_is_named_and_serves(tmp_path, text):
    start(tmp_path / "whole", text).run()
    training = start(tmp_path / "run", text)
    stop_after(training, 9)
    training.run()
    damaged = tmp_path / "run" / "step-000009"
    (damaged / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(MinidsError, match=r"To go on from step-000008, remove .*step-000009"):
        Run.resume(tmp_path / "run", say=quiet)
    shutil.rmtree(damaged)
    Run.resume(tmp_path / "run", say=quiet).run()
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")


@pytest.mark.parametrize("heard", [0, 1, 3])
def test_when_nobody_listens_any_more_the_run_ends_as_by_ctrl_c(tmp_path, text, heard, capsys):
    """minids train … | head"""
    start(tmp_path / "whole", text).run()
    told = []

    def say(line):
        if len(told) == heard:
            raise BrokenPipeError
        told.append(line)

    training = start(tmp_path / "run", text, say=say)
    training.run()
    assert training.step < RUN.steps and f"Stopped after step {training.step}. To go on" in capsys.readouterr().err
    if training.step:
        assert latest_checkpoint(tmp_path / "run").name == f"step-{training.step:06d}"
    Run.resume(tmp_path / "run", say=quiet).run()
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")


def test_when_stderr_is_closed_too_nothing_is_said_and_nothing_lost(tmp_path, text, monkeypatch):
    """minids train … 2>&1 | head"""

    def broken(*_):
        raise BrokenPipeError

    training = start(tmp_path / "run", text, say=lambda line: training.step == 5 and broken())
    training.train = training.train.replace(log_every=1, eval_every=5)
    monkeypatch.setattr("sys.stderr.write", broken)
    training.run()
    monkeypatch.undo()
    assert latest_checkpoint(tmp_path / "run").name == "step-000005"


def test_stopped_before_the_first_step_it_says_so_and_can_go_on(tmp_path, text):
    training = start(tmp_path / "run", text, say=(said := []).append)
    training._stop = True
    assert training.run() is None and "Stopped after step 0. To go on" in said[-1]
    Run.resume(tmp_path / "run", say=quiet).run()


def test_more_threads_than_sequences_are_not_taken_on_resuming_either(tmp_path, text):
    training = start(tmp_path / "run", text)
    stop_after(training, 3)
    training.run()
    again = Run.resume(tmp_path / "run", {"workers": 9}, say=quiet)
    assert again.train.workers == RUN.batch_size
    again.run()


def test_threads_are_not_taken_where_they_would_change_the_loss(tmp_path, text):
    model = MODEL.replace(seq_aux=False, aux_loss_alpha=0.01)
    training = start(tmp_path / "run", text, model)
    stop_after(training, 3)
    training.run()
    again = Run.resume(tmp_path / "run", {"workers": 2}, say=(said := []).append)
    assert again.train.workers == 1 and not any("thread" in line for line in said)
    close(again)


def test_what_cannot_be_trained_takes_no_folder(tmp_path, text):
    with pytest.raises(MinidsError, match="context_length = 1: 1 MTP modules look that far ahead"):
        start(tmp_path / "run", text, run=RUN.replace(context_length=1))
    (tmp_path / "ab.txt").write_text("ab")
    with pytest.raises(MinidsError, match="its held-out text has 0 tokens"):
        start(tmp_path / "run", [str(tmp_path / "ab.txt")], run=RUN.replace(tokenizer="chars"))
    assert not (tmp_path / "run").exists()


def test_files_that_are_passed_over_are_told_of(tmp_path, text):
    (Path(text[0]) / "old.txt").write_bytes("über".encode("latin-1"))
    training = start(tmp_path / "run", text, say=(said := []).append)
    assert said == ["Passed over 1 file: old.txt is not UTF-8 text (byte 0)"]
    close(training)


@pytest.mark.parametrize(
    ("where", "folder"),
    [("deeper/text/rhyme.txt", True), ("called otherwise/rhyme.txt", True), ("new/name.txt", True), ("new/name.txt", False)],
)
def test_a_text_that_moved_or_is_called_otherwise_is_known_by_its_hash(tmp_path, text, where, folder):
    start(tmp_path / "whole", text).run()
    training = start(tmp_path / "run", text)
    stop_after(training, 5)
    training.run()
    new = tmp_path / where
    new.parent.mkdir(parents=True)
    shutil.move(Path(text[0]) / "rhyme.txt", new)
    shutil.rmtree(text[0])
    (tmp_path / "run").rename(tmp_path / "moved run")
    with pytest.raises(MinidsError, match="say --data and where it is now"):
        Run.resume(tmp_path / "moved run", say=quiet)
    Run.resume(tmp_path / "moved run", {"data": [str(new.parent if folder else new)]}, quiet).run()
    assert lines(tmp_path / "whole") == lines(tmp_path / "moved run")  # domains keep their names
    Run.resume(tmp_path / "moved run", say=quiet)  # it is remembered


def test_a_finished_run_is_extended_by_more_steps_and_says_what_the_schedule_does(tmp_path, text):
    start(tmp_path / "run", text).run()
    said: list[str] = []
    longer = Run.resume(tmp_path / "run", {"steps": RUN.steps + 6}, said.append)
    assert any("schedule" in line for line in said) and any("learning rate" in line for line in said)
    longer.run()
    rates = {line["step"]: line["learning_rate"] for line in lines(tmp_path / "run") if "learning_rate" in line}
    again = RUN.replace(steps=RUN.steps + 6)
    assert rates[RUN.steps + 1] == learning_rate(RUN.steps, again)
    assert rates[RUN.steps] == learning_rate(RUN.steps - 1, RUN)
    assert Run.resume(tmp_path / "run", say=quiet).train.steps == RUN.steps + 6


def test_fewer_steps_are_another_run(tmp_path, text):
    start(tmp_path / "run", text).run()
    with pytest.raises(MinidsError, match=r"steps = 3: the run there has"):
        Run.resume(tmp_path / "run", {"steps": 3}, quiet)


def test_no_validation_on_the_way_or_none_at_all(tmp_path, text):
    start(tmp_path / "ends", text, run=RUN.replace(eval_every=0)).run()
    assert [line["step"] for line in lines(tmp_path / "ends") if "validation" in line] == [0, RUN.steps]
    training = start(tmp_path / "none", text, run=RUN.replace(validation_share=0.0))
    size = sum(file.stat().st_size for file in (tmp_path / "text").rglob("*") if file.is_file())
    assert len(training.text.training) > size  # all of it, and a begin and end token for each document
    stop_after(training, 5)
    training.run()
    Run.resume(tmp_path / "none", say=quiet).run()
    assert not any("validation" in line for line in lines(tmp_path / "none"))


def test_a_run_begins_again_where_one_ended_before_its_first_step(tmp_path, text):
    training = start(tmp_path / "run", text)
    training.ask_to_stop()
    training.run()
    start(tmp_path / "run", text, run=RUN.replace(seed=3)).run()
    with pytest.raises(MinidsError, match="--overwrite"):
        start(tmp_path / "run", text)
    Run.start(tmp_path / "run", MODEL, RUN, text, "tiny", quiet, overwrite=True).run()
    start(tmp_path / "alone", text).run()
    assert lines(tmp_path / "run") == lines(tmp_path / "alone")


def test_sums_right_stand_beside_the_loss_where_the_text_has_sums(tmp_path, text):
    """In what is said, in the metrics and in the last sentence; a text without sums is asked for none."""
    sums = tmp_path / "sums.txt"
    sums.write_text("".join(f"What is {a} + {b}?\n{a} + {b} = {a + b}.\n\n" for a in range(1, 10) for b in range(1, 10)))
    said = []
    training = start(tmp_path / "sums", [str(sums)], say=said.append)
    assert list(training.sums) == ["one-digit sums"] and len(training.sums["one-digit sums"]) == exam.ON_THE_WAY
    training.run()
    right = [line["sums_right"] for line in read_metrics(tmp_path / "sums" / "metrics.jsonl") if "validation" in line]
    assert right == [{"one-digit sums": 0.0}] * 3
    assert said[1] == "step 0: sums right: 0 % of one-digit sums"
    assert re.fullmatch(
        r"What the model can do now: of 8 bits a byte .* sums \d\.\d\d, and it gets 0 % of .* right\.", said[-1]
    )
    start(tmp_path / "rhyme", text, say=said.append).run()
    assert all("sums_right" not in line for line in read_metrics(tmp_path / "rhyme" / "metrics.jsonl"))
    assert re.fullmatch(r"What the model can do now: of 8 bits a byte it has to guess text \d\.\d\d\.", said[-1])
