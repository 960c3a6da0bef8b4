"""Every notebook runs from top to bottom; every exercise is failed by its stub and passed by its solution."""

import nbformat
import pytest

pytestmark = pytest.mark.notebooks


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def test_all_cells_run_and_every_exercise_can_be_failed_and_passed(builder, source):
    done = builder.execute(builder.notebook_of(builder.rehearsal(source), builder.FOLDER))
    for cell in done.cells:
        tags = cell.metadata.get("tags", [])
        if "must fail" in tags:
            assert "✗" in printed(cell), f"this check has nothing against an empty solution:\n{cell.source}"
        if "must pass" in tags:
            assert "✓" in printed(cell) and "✗" not in printed(cell), f"{cell.source}\n{printed(cell)}"
    assert builder.faults(done, "") == []


def test_outputs_of_a_build_are_the_same_every_time(builder):
    cells = [builder.Cell("code", "import numpy as np\nprint(np.random.default_rng(0).random())\nprint(1)")]
    texts = {builder.text_of(builder.execute(builder.notebook_of(cells, builder.FOLDER))) for _ in range(2)}
    assert len(texts) == 1
    assert "execution" not in nbformat.reads(texts.pop(), as_version=4).cells[0].metadata


def test_times_are_measured_and_not_kept(builder):
    clock = "import time\nprint(time.perf_counter())\nmeasured = True"
    cells = [builder.Cell("code", clock, ("timing",)), builder.Cell("code", "print(measured)")]
    texts = {builder.text_of(builder.execute(builder.notebook_of(cells, builder.FOLDER))) for _ in range(2)}
    assert len(texts) == 1
    timed, after = nbformat.reads(texts.pop(), as_version=4).cells
    assert printed(timed) == builder.NOT_KEPT, "a time has been kept"
    assert printed(after) == "True\n", "the cell with the clock was not executed"


def test_a_complaint_of_a_cell_with_a_clock_is_found(builder):
    cells = [builder.Cell("code", "import sys\nprint('no clock', file=sys.stderr)", ("timing",))]
    assert builder.faults(builder.execute(builder.notebook_of(cells, builder.FOLDER)), "")
