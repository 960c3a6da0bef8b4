"""A pipeline has the gradients and losses of a single process, in every order, in one process and on several."""

from itertools import pairwise

import numpy as np
import pytest
from several_ranks import on_ranks
from support import SHORT_YARN, TINY, batch, build, error
from threaded_ranks import ranks_in_threads

from minids import MinidsError
from minids.backend import use_backend
from minids.parallel.mpi import world
from minids.parallel.pipeline import Apart, Device, Together, held_by
from minids.parallel.pipeline_orders import SCHEDULES, devices, orders
from minids.parallel.stages import bounds
from minids.parallel.timeline import Recording

SIX = TINY.replace(num_hidden_layers=6)
SIZES = [
    ("1F1B", 1, 2), ("1F1B", 4, 6), ("1F1B", 6, 3), ("ZB1P", 3, 2), ("ZB1P", 4, 6), ("ZB1P", 4, 1),
    ("DualPipe", 2, 4), ("DualPipe", 4, 8), pytest.param("DualPipe", 6, 14, marks=pytest.mark.slow),
    ("DualPipeV", 2, 3), ("DualPipeV", 4, 8),
]  # fmt: skip
CONFIGS = {
    "V3": SIX,
    "one MTP module, YaRN": SIX.replace(num_nextn_predict_layers=1, rope_scaling=SHORT_YARN),
    "tied": SIX.replace(tie_word_embeddings=True, num_nextn_predict_layers=0),
    "MTP with matrices of its own": SIX.replace(mtp_own_matrices=True, num_nextn_predict_layers=1),
    "MHA, biases, no shared expert": SIX.replace(attention="mha", attention_bias=True, n_shared_experts=0),
    "loss over the batch": SIX.replace(balance="aux_loss", seq_aux=False),
}


def micro(config, count):
    """tokens and targets (M, B, T), some of which do not count."""
    return map(np.array, zip(*[batch(config, seed=m, ignored=m % 2 == 0) for m in range(count)], strict=True))


def alone(model, tokens, targets):
    """What a single process finds, a micro-batch after the other."""
    model.parameters.zero_grads()
    each = [model.forward_backward(*pair, 1 / len(tokens)) for pair in zip(tokens, targets, strict=True)]
    return each, {p.name: p.grad.copy() for p in model.parameters}


def assert_same(pipeline, losses, model, tokens, targets):
    each, wanted = alone(model, tokens, targets)
    got = pipeline.gradients()
    if isinstance(pipeline, Together):
        assert set(got) == set(wanted), "the stages together have other parameters than the model"
    for name, gradient in got.items():
        worst = error(gradient, wanted[name])
        assert worst <= 1e-12, f"{name}: relative error {worst:.2g}"
    assert losses.total == pytest.approx(np.mean([one.total for one in each]), rel=1e-13)
    assert losses.mtp == pytest.approx(np.mean([one.mtp for one in each], axis=0), rel=1e-13)
    assert losses.balance == pytest.approx(np.mean([one.balance for one in each]), rel=1e-13)
    assert np.array_equal(losses.counts, sum(one.counts for one in each))


@pytest.mark.parametrize(("schedule", "stages", "microbatches"), SIZES)
def test_gradients_are_those_of_a_single_process(schedule, stages, microbatches, reference_backend):
    model = build(SIX)
    tokens, targets = micro(SIX, microbatches)
    pipeline = Together(model, schedule, stages)
    losses, _ = pipeline.forward_backward(tokens, targets)
    assert_same(pipeline, losses, model, tokens, targets)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("schedule", ["ZB1P", pytest.param("DualPipe", marks=pytest.mark.slow)])
def test_whatever_the_model_has(schedule, name, reference_backend):
    config = CONFIGS[name]
    model = build(config)
    tokens, targets = micro(config, 8)
    pipeline = Together(model, schedule, 4)
    losses, _ = pipeline.forward_backward(tokens, targets)
    assert_same(pipeline, losses, model, tokens, targets)


def test_compiled_operations_put_their_weights_off_too():
    with use_backend("numba"):
        model = build(SIX)
        model.recompute = True
        tokens, targets = micro(SIX, 8)
        pipeline = Together(model, "DualPipe", 4)
        losses, _ = pipeline.forward_backward(tokens, targets)
        assert_same(pipeline, losses, model, tokens, targets)


def test_fp8_layers_add_their_weights_at_once(reference_backend):
    config = SIX.replace(precision="fp8", num_nextn_predict_layers=1)
    model = build(config, dtype=np.float32)
    tokens, targets = micro(config, 2)
    pipeline = Together(model, "ZB1P", 3)
    losses, _ = pipeline.forward_backward(tokens, targets)
    _, wanted = alone(model, tokens, targets)
    shared = ("model.embed_tokens.weight",)
    for name, gradient in pipeline.gradients().items():
        assert name in shared or np.array_equal(gradient, wanted[name]), f"{name} has other bits"
    assert np.isfinite(losses.total)


def test_where_the_order_of_sums_is_the_same_so_are_the_bits(reference_backend):
    """Only the embedding that two stages look up adds in another order; DualPipe's two directions do everywhere."""
    model = build(SIX, dtype=np.float32)
    tokens, targets = micro(SIX, 6)
    _, wanted = alone(model, tokens, targets)
    for schedule in ("1F1B", "ZB1P", "DualPipeV"):
        pipeline = Together(model, schedule, 4)
        pipeline.forward_backward(tokens, targets)
        for name, gradient in pipeline.gradients().items():
            same = np.array_equal(gradient, wanted[name])
            assert same or name == "model.embed_tokens.weight", f"{schedule}: {name} has other bits"


def test_a_second_step_forgets_the_first(reference_backend):
    model = build(SIX)
    pipeline = Together(model, "1F1B", 2)
    first, second = (tuple(micro(SIX, 2)), tuple(array[:, :, ::-1] for array in micro(SIX, 2)))
    pipeline.forward_backward(*first)
    losses, _ = pipeline.forward_backward(*second)
    assert_same(pipeline, losses, model, *second)


def test_the_weight_of_the_mtp_loss_may_be_given(reference_backend):
    model = build(SIX)
    tokens, targets = micro(SIX, 2)
    losses, _ = Together(model, "1F1B", 2).forward_backward(tokens, targets, mtp_loss_weight=0.0)
    assert losses.total == pytest.approx(losses.main + losses.balance)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_device_does_what_its_programme_says_and_keeps_nothing(schedule, reference_backend):
    pipeline = Together(build(SIX), schedule, 4)
    tokens, targets = micro(SIX, 8)
    _, recording = pipeline.forward_backward(tokens, targets)
    for device, programme in zip(pipeline.devices, orders(schedule, 4, 8), strict=True):
        actions = [action for instruction in programme for action in instruction]
        mine = [slot for slot in recording.slots if slot.device == device.index]
        assert [(s.kind, s.direction, s.microbatch) for s in mine] == actions
        assert not device.saved and not device.later, "activations or weight gradients are left over"
        assert all(a.end <= b.start for a, b in pairwise(mine)), "two actions at once"
    assert len(recording.busy) == len(recording.slots) and min(recording.busy) >= 0


def test_a_device_holds_its_stages_and_no_more():
    sizes = {schedule: [d.parameters.values.size for d in Together(build(SIX), schedule, 4).devices] for schedule in SCHEDULES}
    whole, embedding = build(SIX).parameters.values.size, SIX.vocab_size * SIX.hidden_size
    assert sum(sizes["1F1B"]) == sum(sizes["ZB1P"]) == whole + embedding, "the last stage has a copy of the embedding"
    assert sum(sizes["DualPipeV"]) == whole, "the embedding is shared: first and last stage are one device's"
    assert sum(sizes["DualPipe"]) == 2 * whole, "two copies of every stage"


def test_an_mtp_module_counts_as_a_block():
    assert bounds(SIX, 4) == [0, 2, 4, 6, 8], "6 blocks and 2 MTP modules"
    assert bounds(SIX.replace(num_nextn_predict_layers=0), 4) == [0, 1, 3, 4, 6]


def test_weights_are_taken_and_biases_too():
    model = build(SIX)
    device = Device(SIX, "1F1B", 4, 1, np.dtype(np.float64))
    device.take_weights(model)
    assert held_by("1F1B", 4, 1) == (1,) and set(device.parameters.buffers)
    for name, buffer in device.parameters.buffers.items():
        assert np.array_equal(buffer, model.parameters.buffers[name])
    for p in device.parameters:
        assert np.array_equal(p.value, model.parameters[p.name].value)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda m: Together(m, "1F1B", 9), "stages = 9: a model of 6 blocks and 2 MTP modules has 1 to 8 stages"),
        (lambda m: Together(m, "1F1B", 8), "stages = 8: would part the MTP modules"),
        (lambda m: Together(m, "DualPipe", 3), "stages = 3: DualPipe puts two stages on a device: it needs an even number"),
        (lambda m: Together(m, "2F2B", 2), "schedule = '2F2B': must be one of"),
        (lambda m: Apart(m, "1F1B", 4, world()), "processes = 1: 1F1B with 4 stages runs on 4"),
        (lambda m: Together(m, "DualPipe", 4).forward_backward(*micro(SIX, 6)), "microbatches = 6: DualPipe needs at least 8"),
        (lambda m: Together(m, "1F1B", 2).forward_backward([[1, 2]], [[2, 3]]), "must be (micro-batches, sequences, tokens)"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(make, line):
    with pytest.raises(MinidsError) as refused:
        make(build(SIX))
    assert line in str(refused.value) and "\n" not in str(refused.value)


def test_scales_of_whole_steps_are_refused():
    with pytest.raises(MinidsError, match="fp8_scaling = 'delayed'"):
        Together(build(SIX.replace(precision="fp8", fp8_scaling="delayed"), dtype=np.float32), "1F1B", 2)


def test_a_recording_comes_back_as_it_was_written(tmp_path):
    _, recording = Together(build(SIX), "DualPipeV", 4).forward_backward(*micro(SIX, 4))
    path = tmp_path / "recording.json"
    recording.save(path)
    again = Recording.load(path)
    assert again._replace(slots=[], busy=[]) == recording._replace(slots=[], busy=[])
    for a, b in zip(again.slots, recording.slots, strict=True):
        assert a._replace(start=0, end=0) == b._replace(start=0, end=0) and a.end == pytest.approx(b.end, abs=1e-6)


@pytest.mark.parametrize("text", ["{}", '{"slots": 3}', "[]", '{"slots": [[0, 2, 1, "F", 0, 0, 0, 0]]}'])
def test_what_is_no_recording_is_refused_in_a_line(text, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(MinidsError) as refused:
        Recording.load(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(("schedule", "stages"), [("ZB1P", 3), ("DualPipe", 2), ("DualPipeV", 4)])
def test_ranks_that_are_threads_have_the_gradients_too(schedule, stages, reference_backend):
    """Without MPI; each thread puts off weights for itself."""
    model = build(SIX)
    tokens, targets = micro(SIX, 4)

    def work(ranks):
        pipeline = Apart(model, schedule, stages, ranks)
        return pipeline, *pipeline.forward_backward(tokens, targets)

    for pipeline, losses, recording in ranks_in_threads(devices(schedule, stages), work):
        assert_same(pipeline, losses, model, tokens, targets)
        assert {slot.device for slot in recording.slots} == set(range(devices(schedule, stages)))


def on_processes(schedule: str, stages: int, microbatches: int, length: int) -> dict:
    """On each rank: its device's gradients against the single process's, which every rank works out for itself."""
    with use_backend("numpy"):
        config = SIX.replace(num_nextn_predict_layers=1, max_position_embeddings=512)
        model = build(config)
        pairs = [batch(config, length=length, seed=m) for m in range(microbatches)]
        tokens, targets = map(np.array, zip(*pairs, strict=True))
        pipeline = Apart(model, schedule, stages, world())
        losses, recording = pipeline.forward_backward(tokens, targets)
        assert_same(pipeline, losses, model, tokens, targets)
    everyone = {slot.device for slot in recording.slots}
    return {"devices": sorted(everyone), "processes": recording.processes, "total": losses.total}


@pytest.mark.parallel
@pytest.mark.parametrize(
    ("schedule", "stages", "microbatches", "length"),
    [("1F1B", 2, 3, 6), ("ZB1P", 4, 6, 6), ("DualPipe", 2, 4, 6), ("DualPipe", 4, 8, 6), ("DualPipeV", 4, 6, 6),
     ("DualPipe", 4, 10, 400)],
)  # fmt: skip
def test_every_rank_has_the_gradients_of_a_single_process(schedule, stages, microbatches, length):
    """The last case sends 77 kB at once, more than an MPI takes along before the receiver asks for it."""
    ranks = devices(schedule, stages)
    found = on_ranks(ranks, on_processes, schedule, stages, microbatches, length)
    assert all(rank["devices"] == list(range(ranks)) and rank["processes"] == ranks for rank in found)
    assert len({rank["total"] for rank in found}) == 1, "ranks have other losses"
