"""The record of what routers did: exactly what they did, split among threads or not, and nothing of the run changed by it."""

import numpy as np
import pytest
import support

from minids.errors import MinidsError
from minids.lab.analysis.routing_trace import Recorder, RoutingTrace, path_of, trace, traces
from minids.model import DeepSeekV3
from minids.training.workers import Workers

TINY = support.TINY


def test_a_trace_is_what_the_router_chose():
    model = support.build()
    tokens, targets = support.batch(size=3)
    saved = model.forward(tokens, targets)[1]
    with Recorder([model]) as recorder:
        losses = model.forward_backward(tokens, targets)
    found = recorder.trace(tokens, step=7)
    want = saved.moe
    assert [layer.name for layer in found.layers] == [f"model.layers.{i}.mlp" for i in (1, 2, 3)]
    assert found.step == 7 and found.experts == 8 and found.groups == 4
    for depth, (layer, ffn) in enumerate(zip(found.layers, want, strict=True)):
        assert layer.chosen.shape == (3, 6 - depth, 3), "an MTP layer sees as many positions fewer as it looks ahead"
        np.testing.assert_array_equal(layer.chosen.reshape(-1, 3), ffn.routing.chosen)
        np.testing.assert_array_equal(layer.gates.reshape(-1, 3), ffn.routing.gates)
    np.testing.assert_array_equal(found.layers[0].bias, model.moe_layers[0].bias)
    np.testing.assert_array_equal(found.counts(), losses.counts)
    np.testing.assert_array_equal(found.counts_by_sequence().sum(axis=0), losses.counts)


def test_threads_and_micro_batches_come_in_the_order_of_the_sequences():
    model = DeepSeekV3(TINY)
    one, two = (support.batch(size=5, seed=seed) for seed in (1, 2))
    tokens = np.concatenate([one[0], two[0]])
    with Workers(model, 3) as workers, Recorder(workers.models) as recorder:
        for batch in (one, two):
            workers.forward_backward(*batch, 1.0, 0.3)
    split = recorder.trace(tokens)
    with Recorder([model]) as recorder:
        model.forward_backward(*(np.concatenate(parts) for parts in zip(one, two, strict=True)))
    for a, b in zip(split.layers, recorder.trace(tokens).layers, strict=True):
        np.testing.assert_array_equal(a.chosen, b.chosen)


def test_the_bias_of_a_trace_is_the_one_that_took_part_in_the_choice():
    model = support.build()
    before = model.moe_layers[0].bias.copy()
    with Recorder([model]) as recorder:
        losses = model.forward_backward(*support.batch())
        model.update_biases(losses.counts, 0.5)
    np.testing.assert_array_equal(recorder.trace(support.batch()[0]).layers[0].bias, before)


def test_nothing_is_called_when_nobody_records_and_recording_changes_no_bit():
    model = support.build()
    tokens, targets = support.batch()
    plain = model.loss_and_grads(tokens, targets)
    with Recorder([model]):
        recorded = model.loss_and_grads(tokens, targets)
    assert all(layer.on_routing is None for layer in model.moe_layers)
    assert plain[0].total == recorded[0].total
    assert all(np.array_equal(plain[1][name], recorded[1][name]) for name in plain[1])


def test_counts_of_a_part_of_the_tokens():
    model = support.build()
    tokens, _ = support.batch(size=2)
    domain = np.array([[0, 0, 1, 1, 1, 1], [1] * 6])
    found = trace(model, tokens, ("a", "b"), domain)
    assert len(found.layers) == 1, "the main model alone"
    a, b = (found.counts(domain == d) for d in (0, 1))
    np.testing.assert_array_equal(a + b, found.counts())
    np.testing.assert_array_equal(a[0], np.bincount(found.layers[0].chosen[0, :2].reshape(-1), minlength=8))


def test_a_text_in_pieces_gives_the_same_trace():
    model = support.build()
    tokens, _ = support.batch(size=5)
    whole, pieces = (trace(model, tokens, batch_size=size) for size in (5, 2))
    np.testing.assert_array_equal(whole.layers[0].chosen, pieces.layers[0].chosen)


@pytest.mark.parametrize("config", [TINY, TINY.replace(**support.V2_ROUTER)], ids=["with a bias", "without"])
def test_saved_and_read_again(config, tmp_path):
    model = support.build(config)
    tokens, _ = support.batch(size=2)
    domain = np.arange(12).reshape(2, 6) % 2
    want = trace(model, tokens, ("prose", "code"), domain)
    want.save(path_of(tmp_path, 40))
    assert [path.name for path in traces(tmp_path)] == ["step-000040.npz"]
    with np.load(path_of(tmp_path, 40)) as file:
        assert (file["chosen.0"].dtype, file["gates.0"].dtype) == (np.uint8, np.float16), "a trace takes three bytes a choice"
    found = RoutingTrace.load(traces(tmp_path)[0])
    assert found.domains == ("prose", "code") and (found.experts, found.groups) == (8, 4)
    np.testing.assert_array_equal(found.tokens, tokens)
    np.testing.assert_array_equal(found.domain, domain)
    a, b = found.layers[0], want.layers[0]
    assert a.name == b.name
    np.testing.assert_array_equal(a.chosen, b.chosen)
    np.testing.assert_allclose(a.gates, b.gates, rtol=1e-3)
    assert (a.bias is None) == (b.bias is None)
    assert a.bias is None or np.array_equal(a.bias, b.bias)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"not a trace")
    np.savez(tmp_path / "y.npz", a=np.zeros(3))
    for name in ("x.npz", "y.npz", "missing.npz"):
        with pytest.raises(MinidsError, match="no routing trace"):
            RoutingTrace.load(tmp_path / name)
