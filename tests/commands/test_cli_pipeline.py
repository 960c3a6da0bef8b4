"""minids pipeline executed: what ran, beside what the simulator makes of it."""

import json

import pytest
from several_ranks import mpiexec

from minids.cli import main
from minids.lab.analysis.pipeline import Times, simulate
from minids.lab.analysis.pipeline_measured import compared, mean_times
from minids.lab.analysis.pipeline_table import format_measured
from minids.parallel.timeline import Recording, Slot

SMALL = ("--schedule", "ZB1P", "--stages", "2", "--microbatches", "3", "--sequences", "1", "--length", "16")


def said(capsys, *arguments):
    code = main(["pipeline", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("pipeline") / "recording.json"
    assert main(["pipeline", "--execute", *SMALL, "--record", str(path)]) == 0
    return path


def test_it_is_executed_recorded_and_drawn(recording, tmp_path, capsys):
    code, out, _ = said(capsys, "--measured", recording, "--png", tmp_path / "drawn.png")
    assert code == 0 and "ZB1P, 2 stages, 3 micro-batches of 1 x 16 tokens; tiny" in out
    assert out.count("device  0") == out.count("device  1") == 3, "measured, replayed, simulated"
    assert "devices by turns" in out and "step, ms" in out
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(said(capsys, "--measured", recording, "--json")[1])
    assert set(found) == {"measured", "replayed", "simulated"} and len(found["measured"]["slots"]) == 2 * 3 * 3


def of(schedule, times, busy, delay=0.0):
    """A recording as if chunks took ``times`` of the clock and ``busy(slot)`` of the processor."""
    timeline = simulate(schedule, 4, 8, Times(*times))
    slots = [slot._replace(start=slot.start + delay, end=slot.end + delay, overlapped=False) for slot in timeline.slots]
    return Recording(schedule, 4, 8, 4, 2, "a model", (1, 8), slots, [busy(slot) for slot in slots])


def test_a_recording_of_what_was_simulated_is_the_simulation():
    times = mean_times(of("ZB1P", (1, 2, 1, 3), lambda slot: slot.end - slot.start))
    assert times == (1, 2, 1, 3)
    found = compared(of("ZB1P", times, lambda slot: slot.end - slot.start, delay=0.5))
    assert found.replayed.slots == found.simulated.slots == simulate("ZB1P", 4, 8).slots
    assert found.measured.makespan == found.simulated.makespan + 0.5 and found.measured.bubble == found.simulated.bubble + 0.5


def test_a_slow_stage_is_slow_in_the_replay_and_not_in_the_mean():
    found = compared(of("1F1B", (1, 2, 1, 3), lambda slot: (slot.end - slot.start) * (2 if slot.stage == 3 else 1)))
    assert found.replayed.makespan > found.simulated.makespan
    assert found.simulated.times.forward == pytest.approx(1.25), "one stage of four takes twice as long"
    late = [slot for slot in found.replayed.slots if slot.device == 3 and slot.kind == "F"]
    assert all(slot.end - slot.start == 2 for slot in late)


def test_times_of_orders_without_some_kind_of_chunk():
    assert mean_times(of("1F1B", (1, 2, 1, 3), lambda slot: slot.end - slot.start)) == (1, 2, 1, 3)
    one = Recording(
        "1F1B", 1, 1, 1, 1, "", (1, 8), [Slot(0, 0, 1, "F", 0, 0, 0, False), Slot(0, 1, 3, "B", 0, 0, 0, False)], [1, 2]
    )
    assert "1 process" in format_measured(one)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--record", "x.json"), "record = 'x.json': concerns --execute"),
        (("--length", "8"), "length = 8: concerns --execute"),
        (("--execute", "--forward", "2"), "forward = 2.0: concerns the simulation"),
        (("--execute", "--measured", "x"), "measured = 'x': is a recording that is there"),
        (("--measured", "x", "--stages", "4"), "stages = 4: is in the recording"),
        (("--measured", "nowhere.json"), "nowhere.json: cannot be opened"),
        (("--png", "x.png"), "png = 'x.png': is of --execute or --measured"),
        (("--execute", "--record", "nowhere/x.json"), "record = 'nowhere/x.json': must be a file in a folder"),
        (("--execute", "--stages", "9"), "stages = 9: DualPipe puts two stages"),
        (("--execute", "--schedule", "1F1B", "--stages", "9"), "a model of 5 blocks and 1 MTP module has 1 to 6 stages"),
        (("--execute", "--stages", "4", "--length", "1"), "length = 1: must be a whole number of 2 to"),
        (("--execute", "--stages", "4", "--sequences", "0"), "sequences = 0: must be a whole number of at least 1"),
        (("--execute", "--preset", "tny"), "preset = 'tny'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_exit_code_2(options, line, capsys):
    code, out, err = said(capsys, *options)
    assert code == 2 and not out and line in err and err.count("\n") == 1


@pytest.mark.parallel
def test_a_device_on_each_process(tmp_path):
    path = tmp_path / "recording.json"
    done = mpiexec(2, "-m", "minids", "pipeline", "--execute", *SMALL, "--record", str(path))
    assert done.returncode == 0 and "2 processes that share" in done.stdout and done.stdout.count("measured;") == 1, done.stderr
    assert Recording.load(path).processes == 2
    refused = mpiexec(3, "-m", "minids", "pipeline", "--execute", *SMALL)
    assert refused.returncode and "processes = 3: ZB1P with 2 stages runs on 2" in refused.stderr
    assert "are for --execute" in mpiexec(2, "-m", "minids", "pipeline").stderr
