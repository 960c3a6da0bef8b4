"""QK-Clip: clipped heads have the threshold as their largest logit, all else stays, and runs go on with it to the bit."""

import numpy as np
import pytest
import small_run
import support
from small_run import lines, quiet, stop_after, write_text

from minids.errors import MinidsError
from minids.training.loop import training_steps
from minids.training.optimizer import AdamW
from minids.training.qk_clip import QKClip, attentions, check_clip, clip
from minids.training.run import Run
from minids.training.workers import Workers


def largest(model, tokens, targets):
    """(layers, H) of a forward pass."""
    watch = QKClip([model], 1.0)
    with watch.recording():
        model.forward(tokens, targets)
    return watch.seen[0].copy()


@pytest.mark.parametrize("changes", [dict(), dict(q_lora_rank=None)], ids=["query latent", "none"])
def test_heads_above_the_threshold_end_at_it_and_the_others_are_left_alone(changes):
    config = support.TINY.replace(**changes)
    model, (tokens, targets) = support.build(config), support.batch(config)
    before = largest(model, tokens, targets)[0]  # of the first layer, (H,)
    threshold = float(np.sort(before)[1] + np.sort(before)[2]) / 2
    assert threshold > 0
    layer, weights = attentions(model)[0], model.parameters.values.copy()
    clip(layer, np.minimum(1.0, threshold / np.maximum(before, threshold)))
    after = largest(model, tokens, targets)[0]
    support.assert_close(after, np.minimum(before, threshold), 1e-12)
    changed = {p.name.rpartition(".self_attn.")[2] for p in model.parameters if (p.value.ravel() != weights[p.place]).any()}
    assert changed == {"q_b_proj.weight" if layer.compresses_queries else "q_proj.weight", "kv_b_proj.weight"}
    keys = weights[model.parameters["model.layers.0.self_attn.kv_b_proj.weight"].place].reshape(4, 9, -1)
    now = layer.kv_b_proj.weight.value.reshape(4, 9, -1)
    assert np.array_equal(now[:, 6:], keys[:, 6:]), "values are no part of a logit"
    assert np.array_equal(now[before <= threshold], keys[before <= threshold])


def test_both_parts_of_a_logit_shrink_alike():
    model = support.build()
    layer, rng = attentions(model)[0], np.random.default_rng(1)
    x = rng.normal(size=(1, 5, 12))
    angles = support.angles(model.config, 5)

    def parts():
        q, _ = layer.queries(x, angles)
        c_kv, k_rope, _ = layer.latent(x, angles)
        k, _, _ = layer.keys_values(c_kv, k_rope)
        return [np.einsum("bihd,bjhd->hij", q[..., at], k[..., at]) for at in (slice(6), slice(6, None))]

    before, gamma = parts(), np.array([1.0, 0.5, 0.25, 0.9])
    clip(layer, gamma)
    for old, new in zip(before, parts(), strict=True):
        support.assert_close(new, old * gamma[:, None, None], 1e-12)


def test_a_step_is_measured_over_all_threads_and_validation_is_not():
    model = support.build(dtype=np.float32)
    tokens, targets = support.batch(size=4)
    with Workers(model, 2) as workers:
        watch = QKClip(workers.models, 1e-3)
        with watch.recording():
            workers.forward_backward(tokens, targets, 1.0, 0.3)
        measured = watch.seen.max(axis=0)
        model.losses((tokens + 1) % 19, targets)  # not within recording
        assert np.array_equal(measured, watch.seen.max(axis=0))
        np.testing.assert_allclose(measured, largest(model, tokens, targets), rtol=1e-5)
        assert watch.apply() == pytest.approx(measured.max())


class Again:
    def __init__(self, *batch):
        self.batch = batch

    def next(self):
        return self.batch


def test_the_loop_clips_after_the_step_and_says_what_it_saw():
    batch = support.batch(size=2)
    run = small_run.RUN.replace(steps=1, learning_rate=1e-30, weight_decay=0.0, warmup_steps=0, qk_clip=0.05)
    model = support.build(dtype=np.float32)
    before = largest(model, *batch)
    with Workers(model, 1) as workers:
        (done,) = training_steps(model, AdamW(model.parameters, run), Again(*batch), run, workers)
    assert done.largest_logit == pytest.approx(before.max(), rel=1e-6)
    first = largest(model, *batch)[0]  # later layers see other hidden states
    np.testing.assert_allclose(first, np.minimum(before[0], 0.05), rtol=1e-5)


def test_a_run_writes_the_largest_logit_and_resumes_to_the_bit(tmp_path):
    text, run = write_text(tmp_path), small_run.RUN.replace(steps=8, eval_every=8, save_every=8, qk_clip=1e-4, workers=2)
    Run.start(tmp_path / "whole", small_run.MODEL, run, text, "tiny", quiet).run()
    training = Run.start(tmp_path / "parts", small_run.MODEL, run, text, "tiny", quiet)
    stop_after(training, 3)
    training.run()
    Run.resume(tmp_path / "parts", say=quiet).run()
    found = lines(tmp_path / "whole")
    assert found == lines(tmp_path / "parts")
    logits = [line["largest_logit"] for line in found if "largest_logit" in line]
    assert len(logits) == 8 and max(logits[1:]) < 2e-2


def test_other_attentions_have_no_such_weights(tmp_path):
    with pytest.raises(MinidsError, match="qk_clip = 100: is a rule for MLA's weights, and attention = 'mha'"):
        check_clip(small_run.MODEL.replace(attention="mha"), small_run.RUN.replace(qk_clip=100))
    with pytest.raises(MinidsError, match="qk_clip"):
        model = small_run.MODEL.replace(attention="mha")
        Run.start(tmp_path / "run", model, small_run.RUN.replace(qk_clip=1.0), write_text(tmp_path), "tiny", quiet)
    assert not (tmp_path / "run").exists()
