"""Runs with delayed scaling: the history is that of training steps alone, of all threads, and goes on in a resumed run."""

import numpy as np
import small_run
from small_run import lines, quiet, stop_after, write_text

from minids.training.run import Run

MODEL = small_run.MODEL.replace(precision="fp8", fp8_scaling="delayed")
RUN = small_run.RUN.replace(steps=8, eval_every=2, save_every=8, workers=2)


def test_a_run_resumes_to_the_bit_whatever_validation_saw(tmp_path):
    text = write_text(tmp_path)
    whole = Run.start(tmp_path / "whole", MODEL, RUN, text, "tiny", quiet)
    whole.run()
    histories = whole.model.parameters.histories
    assert "model.layers.0.self_attn.q_a_proj" in histories and "model.layers.1.mlp.experts" in histories
    past = histories["model.layers.0.self_attn.q_a_proj"].past["x"]
    assert (past[:8] > 0).all() and (past[8:] == 0).all(), "eight steps, and no validation among them"
    training = Run.start(tmp_path / "parts", MODEL, RUN, text, "tiny", quiet)
    stop_after(training, 3)
    training.run()
    Run.resume(tmp_path / "parts", say=quiet).run()
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")
    for name in ("model.safetensors", "amaxes.safetensors"):
        a, b = ((tmp_path / run / "step-000008" / name).read_bytes() for run in ("whole", "parts"))
        assert a == b, name


def test_scales_are_delayed(tmp_path):
    text = write_text(tmp_path)
    losses = {}
    for scaling in ("tensor", "delayed"):
        Run.start(tmp_path / scaling, MODEL.replace(fp8_scaling=scaling), RUN.replace(workers=1), text, "tiny", quiet).run()
        losses[scaling] = [line["loss"] for line in lines(tmp_path / scaling) if "loss" in line]
    assert losses["tensor"][0] == losses["delayed"][0], "the first step has no history"
    assert losses["tensor"][1:] != losses["delayed"][1:]
    np.testing.assert_allclose(losses["tensor"], losses["delayed"], rtol=0.1)
