"""Pipeline schedules: simulated against the closed forms of DeepSeek-V3's Table 2, and against the laws of any pipeline."""

from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minids import MinidsError
from minids.lab.analysis import pipeline
from minids.lab.analysis.pipeline import USUAL, Slot, Timeline, Times, closed_form, simulate
from minids.parallel.pipeline_orders import SCHEDULES, Action, devices, orders

quick = settings(deadline=None, derandomize=True, max_examples=40)
halves = st.integers(1, 8)
chunk = st.integers(1, 6)


def verify(timeline: Timeline) -> None:
    """Assert what any valid timeline must satisfy, from its slots alone.

    No device does two things at once unless overlapped; every stage sees every micro-batch once in F and once in B (or I, then
    W); a forward starts after the stage before has ended, a backward after the stage behind.
    """
    seen: dict[tuple, Slot] = {}
    by_device: dict[int, list[Slot]] = defaultdict(list)
    for slot in timeline.slots:
        by_device[slot.device].append(slot)
        batch = slot.microbatch if timeline.schedule != "DualPipe" else (slot.direction, slot.microbatch)
        for kind in ("I", "W") if slot.kind == "B" else (slot.kind,):
            assert (kind, slot.stage, batch) not in seen, f"{kind} of micro-batch {batch} runs twice on stage {slot.stage}"
            seen[kind, slot.stage, batch] = slot
    assert len(seen) == 3 * timeline.stages * timeline.microbatches, "some chunk is missing"
    for (kind, stage, batch), slot in seen.items():
        inputs = {"F": [("F", stage - 1)], "I": [("F", stage), ("I", stage + 1)], "W": [("I", stage)]}[kind]
        for before, where in inputs:
            if not 0 <= where < timeline.stages or slot is seen[before, where, batch]:
                continue
            assert seen[before, where, batch].end <= slot.start, f"{slot} starts before its input exists"
    for mine in by_device.values():
        spans = sorted({(s.start, s.end) for s in mine})
        assert all(a[1] <= b[0] for a, b in pairwise(spans)), "a device does two things at once"


def simulated(schedule: str, stages: int, microbatches: int, times: Times = USUAL) -> Timeline:
    """A simulation that has been looked over."""
    timeline = simulate(schedule, stages, microbatches, times)
    verify(timeline)
    return timeline


@pytest.mark.parametrize(("schedule", "bubble"), [("1F1B", 45), ("ZB1P", 15), ("DualPipe", 14), ("DualPipeV", 14)])
def test_v3_table_2_at_16_stages(schedule, bubble):
    timeline = simulated(schedule, 16, 32)
    form = closed_form(schedule, 16)
    assert timeline.bubble == form.bubble == bubble
    assert max(timeline.peak_activations) == form.activations == (17 if schedule.startswith("Dual") else 16)
    assert len(timeline.idle) == form.devices == (8 if schedule == "DualPipeV" else 16)


def test_real_overlap_makes_the_bubble_smaller():
    times = Times(overlapped=2.5)
    assert simulated("DualPipe", 16, 32, times).bubble == closed_form("DualPipe", 16, times).bubble == 10.5


@quick
@given(halves, st.integers(0, 6), st.sampled_from(SCHEDULES))
def test_closed_forms_hold_for_equal_chunks(half, more, schedule):
    """F = I = W, any number of stages and micro-batches."""
    stages, microbatches = 2 * half, 4 * half + 2 * more
    timeline, form = simulated(schedule, stages, microbatches), closed_form(schedule, stages)
    assert timeline.bubble == form.bubble
    assert max(timeline.peak_activations) == form.activations


@quick
@given(st.integers(1, 10), st.integers(1, 12), chunk, chunk, chunk)
def test_1f1b_always_has_its_closed_form(stages, microbatches, forward, inputs, weight):
    times = Times(forward, inputs + weight, weight, max(forward, inputs + weight))
    assert simulated("1F1B", stages, microbatches, times).bubble == closed_form("1F1B", stages, times).bubble


@quick
@given(st.integers(2, 8), st.integers(0, 5), chunk, chunk, chunk)
def test_zb1p_where_w_fits_and_where_it_does_not(stages, more, forward, inputs, weight):
    times = Times(forward, inputs + weight, weight, max(forward, inputs + weight))
    bubble = simulated("ZB1P", stages, stages + more, times).bubble
    if weight <= min(forward, inputs):
        assert bubble == closed_form("ZB1P", stages, times).bubble
    else:
        assert bubble == (stages - 1) * max(forward, inputs) > closed_form("ZB1P", stages, times).bubble


@quick
@given(halves, st.integers(0, 3), chunk, chunk, chunk, st.integers(0, 6), st.sampled_from(["DualPipe", "DualPipeV"]))
def test_dualpipe_where_the_closed_form_holds_and_where_not(half, more, forward, inputs, weight, overlap, schedule):
    assume(weight <= min(inputs, forward))
    stages, microbatches, backward = 2 * half, 4 * half + 2 * more, inputs + weight
    times = Times(forward, backward, weight, forward + backward - min(overlap, forward, backward))
    bubble, form = simulated(schedule, stages, microbatches, times).bubble, closed_form(schedule, stages, times).bubble
    if forward == inputs:
        assert bubble == form
    elif forward > inputs:
        assert bubble == (half - 1) * (times.overlapped + forward - 2 * weight)
    else:
        assert bubble == form - min((half - 1) * (inputs - forward), forward)


@quick
@given(st.sampled_from(SCHEDULES), halves, st.integers(0, 4), chunk, chunk, chunk)
def test_every_device_does_its_share_and_no_more(schedule, half, more, forward, inputs, weight):
    stages, microbatches = 2 * half, 4 * half + 2 * more
    times = Times(forward, inputs + weight, weight, forward + inputs + weight)
    timeline = simulated(schedule, stages, microbatches, times)
    work = microbatches * stages // devices(schedule, stages) * (forward + inputs + weight)
    assert all(timeline.makespan - idle == work for idle in timeline.idle), "nothing is saved if F&B = F + B"


def test_dualpipe_is_its_own_mirror_image():
    programmes = orders("DualPipe", 8, 20)
    for rank, programme in enumerate(programmes):
        mirrored = [tuple(a._replace(direction=1 - a.direction) for a in step) for step in programmes[7 - rank]]
        assert programme == mirrored


def test_dualpipe_feeds_both_ends_at_once():
    slots = simulated("DualPipe", 8, 20).slots
    starts = {(s.device, s.direction) for s in slots if s.start == 0}
    assert starts == {(0, 0), (7, 1)}
    assert {s.stage for s in slots if s.device == 2} == {2, 5}


def test_dualpipev_folds_the_pipeline():
    slots = simulated("DualPipeV", 8, 20).slots
    assert {s.stage for s in slots if s.device == 0} == {0, 7}, "the first device also computes the loss"
    assert {s.stage for s in slots if s.device == 3} == {3, 4}


def test_verify_notices_a_forward_before_its_input():
    timeline = simulated("1F1B", 4, 4)
    moved = [s._replace(start=0.0, end=1.0) if (s.kind, s.stage, s.microbatch) == ("F", 2, 0) else s for s in timeline.slots]
    with pytest.raises(AssertionError, match="before its input exists"):
        verify(timeline._replace(slots=moved))


def test_verify_notices_a_missing_and_a_doubled_chunk():
    timeline = simulated("ZB1P", 4, 4)
    with pytest.raises(AssertionError, match="missing"):
        verify(timeline._replace(slots=timeline.slots[1:]))
    with pytest.raises(AssertionError, match="runs twice"):
        verify(timeline._replace(slots=[*timeline.slots, timeline.slots[-1]]))


def test_verify_notices_two_things_at_once():
    timeline = simulated("1F1B", 1, 2)
    late = [s._replace(end=s.end + 0.5) for s in timeline.slots]
    with pytest.raises(AssertionError, match=r"two things at once|before its input"):
        verify(timeline._replace(slots=late))


@pytest.mark.parametrize(
    ("schedule", "stages", "microbatches", "field"),
    [
        ("DualPipe", 5, 20, "stages"),
        ("DualPipeV", 5, 20, "stages"),
        ("DualPipe", 8, 21, "microbatches"),
        ("DualPipe", 8, 14, "microbatches"),
        ("DualPipeV", 8, 7, "microbatches"),
        ("1F1B", 0, 4, "stages"),
        ("1F1B", 4, 0, "microbatches"),
        ("GPipe", 4, 8, "schedule"),
    ],
)
def test_what_does_not_exist_is_refused(schedule, stages, microbatches, field):
    with pytest.raises(MinidsError, match=f"^{field} = "):
        simulated(schedule, stages, microbatches)


def test_programmes_that_wait_for_each_other_are_an_error_and_no_timeline(monkeypatch):
    """The first device has done all that it has to, the second waits for what is not in its programme."""
    forwards = [[(Action("F", 0, 0),)], [(Action("F", 0, 1),)]]
    monkeypatch.setattr(pipeline, "orders", lambda *_: forwards)
    with pytest.raises(AssertionError, match="1F1B with 2 stages and 2 micro-batches waits for itself"):
        simulate("1F1B", 2, 2)


def test_dualpipev_takes_odd_numbers_of_microbatches():
    assert simulated("DualPipeV", 8, 9).bubble == closed_form("DualPipeV", 8).bubble


@pytest.mark.parametrize(
    ("times", "field"),
    [
        (Times(forward=0), "forward"),
        (Times(weight=2), "weight"),
        (Times(overlapped=3.5), "overlapped"),
        (Times(overlapped=1), "overlapped"),
    ],
)
def test_contradictory_times_are_refused(times, field):
    with pytest.raises(MinidsError, match=f"^{field} = "):
        simulated("DualPipe", 4, 8, times)


@quick
@given(halves, st.integers(0, 4))
def test_bubble_share_falls_with_more_microbatches(half, more):
    assume(half > 1)
    stages = 2 * half
    few, many = (simulated("DualPipe", stages, 2 * stages + 2 * n) for n in (more, more + 1))
    assert many.bubble_share < few.bubble_share and many.bubble == few.bubble
