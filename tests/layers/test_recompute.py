"""Recomputation: the same bits of every loss and gradient, from what ``analysis.memory`` says is kept."""

import numpy as np
import pytest
import small_run
import support
from small_run import lines, quiet, write_text

from minids import DeepSeekV3, ModelConfig
from minids.backend import use_backend
from minids.errors import MinidsError
from minids.lab.analysis.memory import activation_elements
from minids.lab.bench.recompute import saved_bytes
from minids.training.run import Run
from minids.training.workers import Workers

KINDS = {
    "V3": dict(),
    "no query latent, biases": dict(q_lora_rank=None, attention_bias=True),
    "no shared expert": dict(n_shared_experts=0),
    "unnormed MTP": dict(mtp_state="unnormed"),
    "fp8": dict(precision="fp8"),
}


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_gradient_has_the_same_bits(kind, backend):
    config = support.TINY.replace(**KINDS[kind])
    batch = support.batch(config, ignored=True)
    with use_backend(backend):
        model = support.build(config, dtype=np.float32)
        losses, wanted = model.loss_and_grads(*batch)
        model.recompute = True
        again, found = model.loss_and_grads(*batch)
    assert again[:4] == losses[:4] and np.array_equal(again.counts, losses.counts)
    for name, gradient in wanted.items():
        assert gradient.tobytes() == found[name].tobytes(), f"the gradient of {name} differs"


@pytest.mark.parametrize("changes", [dict(), dict(num_nextn_predict_layers=0), dict(q_lora_rank=None)])
def test_what_is_kept_is_what_the_paper_counts(changes):
    """Within 5 %: index arrays are 8 bytes wide, and the last norm is kept."""
    config = ModelConfig.preset("tiny", **changes)
    model = DeepSeekV3(config)
    tokens = np.random.default_rng(0).integers(0, 256, (2, 64))
    with use_backend("numpy"):
        stored = saved_bytes(model.forward(tokens, tokens)[1], model.parameters)
        model.recompute = True
        kept = saved_bytes(model.forward(tokens, tokens)[1], model.parameters)
    assert kept == pytest.approx(4 * activation_elements(config, 2, 64, "recompute"), rel=0.05)
    assert kept < 0.65 * stored


def test_threads_share_the_switch():
    model = support.build(dtype=np.float32)
    model.recompute = True
    with Workers(model, 2) as workers:
        assert all(each.recompute for each in workers.models)


def test_a_run_has_the_same_bits_with_it(tmp_path):
    text, run = write_text(tmp_path), small_run.RUN.replace(steps=4, eval_every=4, save_every=4)
    for name, on in (("without", False), ("with", True)):
        Run.start(tmp_path / name, small_run.MODEL, run.replace(recompute=on), text, "tiny", quiet).run()
    assert lines(tmp_path / "without") == lines(tmp_path / "with")
    for name in ("model.safetensors", "optimizer.safetensors"):
        without, with_it = ((tmp_path / run / "step-000004" / name).read_bytes() for run in ("without", "with"))
        assert without == with_it


def test_other_attentions_are_refused(tmp_path):
    model = DeepSeekV3(support.TINY.replace(attention="mha"))
    with pytest.raises(MinidsError, match="recompute = True: forms MLA's up-projections again, and attention = 'mha'"):
        model.recompute = True
    config = small_run.MODEL.replace(attention="mha")
    with pytest.raises(MinidsError, match="recompute"):
        Run.start(tmp_path / "run", config, small_run.RUN.replace(recompute=True), write_text(tmp_path), "tiny", quiet)
    assert not (tmp_path / "run").exists()
