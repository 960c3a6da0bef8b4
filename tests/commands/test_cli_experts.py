"""minids experts as a user meets it: planned from a run's record, judged on its later steps."""

import json

import numpy as np
import pytest
from small_run import MODEL, RUN, quiet, write_text

from minids.cli import main
from minids.lab.analysis.redundant import planned, recorded
from minids.lab.analysis.routing_trace import record
from minids.training.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that recorded steps 0, 2, … 12."""
    folder = tmp_path_factory.mktemp("experts")
    started = Run.start(folder / "run", MODEL, RUN.replace(trace_every=2, save_every=20), write_text(folder), "tiny", quiet)
    started.observers.append(record)
    started.run()
    return folder / "run"


def said(capsys, *arguments):
    code = main(["experts", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_row_for_each_layer_and_a_map(run, capsys):
    code, out, _ = said(capsys, "--run", run, "--gpus", 8, "--nodes", 2, "--map")
    assert code == 0 and "16 experts and 8 redundant ones on 8 GPUs of 2 nodes, hierarchical policy" in out
    assert "planned from 4 recorded steps, 0 to 6, judged on 3 recorded steps, 8 to 12" in out
    assert out.count("model.layers.1.mlp") == 2 and "rows dealt out" in out


def test_json_has_the_whole_map_and_copies_help(run, capsys):
    found = json.loads(said(capsys, "--run", run, "--json", "--gpus", 4, "--redundant", 4)[1])
    first = found["layers"][0]
    assert len(first["held"]) == 20 and sum(first["copies"]) == 20 and found["steps"] == [0, 2, 4, 6]
    assert sum(first["before"]) == sum(first["after"]) == 3 * 2 * 16 * MODEL.num_experts_per_tok
    assert max(first["after"]) < max(first["before"]), "copies of busy experts leave the busiest GPU no less"


def test_what_is_planned_from_is_the_first_half(run):
    traces = recorded(run)
    found = planned(traces, 4)
    wanted = np.sum([trace.counts() for trace in traces[:4]], axis=0)
    assert np.array_equal([layer.load for layer in found.layers], wanted)
    alone = planned(traces[:1], 4)
    assert alone.steps == alone.judged == (0,)
    assert planned(traces, 3).layers[0].before is None, "16 experts cannot be dealt out on 3 GPUs"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--redundant", 3), "redundant = 3: 16 experts on 4 GPUs with as many places each: take 0, 4, 8 …"),
        (("--redundant", -4), "redundant = -4: 16 experts on 4 GPUs with as many places each: take 0, 4, 8 …"),
        (("--gpus", 0), "gpus = 0: must be at least 1"),
        (("--gpus", 6, "--nodes", 3, "--policy", "hierarchical"), "4 groups cannot be divided among 3 nodes; take global"),
        (("--map", "--json"), "map = True: is in the JSON anyway"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(options, line, run, capsys):
    code, out, err = said(capsys, "--run", run, *options)
    assert code == 2 and line in err and err.count("\n") == 1 and not out


def test_a_run_without_a_record_is_told_how_to_make_one(tmp_path, capsys):
    code, _, err = said(capsys, "--run", tmp_path)
    assert code == 2 and "train with --trace-every 10, say" in err
    code, _, err = said(capsys, "--run", tmp_path / "nowhere")
    assert code == 2 and "is no folder" in err
