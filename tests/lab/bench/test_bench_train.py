"""What the bench of a training step measures is the training step."""

import json
from contextlib import ExitStack

import numpy as np
import pytest

from minids.cli import main
from minids.errors import MinidsError
from minids.lab.bench import memory, peers, train
from minids.lab.bench.doctor import examined
from minids.lab.bench.sizes import SIZES, A, B, Size
from minids.model import DeepSeekV3

SMALL = Size(A.replace(hidden_size=16, num_hidden_layers=2, intermediate_size=24, moe_intermediate_size=8), 4, 8)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(SIZES, "A-12x64", SMALL)
    monkeypatch.setattr(train, "sgemm", lambda threads: (lambda: None, 1e9))
    monkeypatch.setattr(train, "peak_megabytes", lambda *_: 12.3)  # its process would not see the small size


def test_sizes_are_those_that_the_documentation_names():
    assert [sum(p.size for p in DeepSeekV3.declared(config)) for config in (A, B)] == [1_629_952, 18_518_400]
    assert [size.tokens for size in SIZES.values()] == [768, 4096, 4096]


def test_both_backends_make_the_same_steps_and_learn():
    with ExitStack() as stack:
        steps = train.contenders(SMALL, 2, None, stack)
        losses = {name: [step() for _ in range(30)] for name, step in steps.items()}
    assert list(losses) == ["numpy", "numba"]
    assert losses["numba"] == pytest.approx(losses["numpy"], rel=1e-3)
    assert losses["numba"][-1] < losses["numba"][0] - 0.1


def test_what_is_found_and_what_is_printed(small):
    found = train.run(("A-12x64",), 2, 1, None)
    rows = found["sizes"]["A-12x64"]["contenders"]
    for row in rows.values():
        assert row["tokens_per_second"] == pytest.approx(32 / row["milliseconds"] * 1e3)
        assert row["share_of_sgemm"] > 0 and row["peak_megabytes"] == 12.3
    table = train.table(found)
    assert "numba" in table and "GFLOP/s" in table and "12" in table


def test_the_share_of_sgemm_is_work_over_work_in_the_same_turn(small, monkeypatch):
    times = {"numpy": [4.0, 40.0], "numba": [2.0, 20.0], train.SGEMM: [1.0, 10.0]}
    monkeypatch.setattr(train, "alternate", lambda calls, rounds: times)
    size = train.run(("A-12x64",), 2, 1, None)["sizes"]["A-12x64"]
    assert size["contenders"]["numba"]["share_of_sgemm"] == pytest.approx(size["flops_per_step"] / 1e9 / 2)
    assert size["contenders"]["numba"]["times_as_fast_as"] == {"numpy": pytest.approx(2)}


def test_peak_memory_holds_weights_gradients_and_moments():
    """Of model A, 1.63 M float32 numbers four times over: 26 MB at the least; the process is a real one."""
    found = memory.peak_megabytes("A-12x64", "numba", 1)
    assert 26 < found < 400 if memory.STATUS.exists() else found is None


def test_a_peer_that_is_not_installed_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(train.peers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MinidsError, match="torch and transformers cannot be imported"):
        train.run(("A-12x64",), 1, 1, "torch")


def test_the_command_prints_json(small, capsys):
    assert main(["bench", "train", "--sizes", "A-12x64", "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sizes"]["A-12x64"]["contenders"]["numba"]["tokens_per_second"] > 0
    assert found["machine"]["cpu"] == examined().cpu and found["machine"]["versions"]["numpy"] == np.__version__


def test_the_machine_stands_above_the_speeds(small, capsys):
    assert main(["bench", "train", "--sizes", "A-12x64", "--rounds", "1"]) == 0
    above, _, below = capsys.readouterr().out.partition("\n\n")
    facts = examined()
    assert facts.cpu in above and facts.blas in above and f"numpy {np.__version__}" in above and "of sgemm" in below


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "rounds = 0: must be at least 1"),
        (["--threads", "-1"], "threads = -1"),
        (["--sizes", "C"], "sizes = 'C'"),
    ],
)
def test_bad_options_are_one_line(arguments, message, capsys):
    assert main(["bench", "train", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_a_compiler_that_fails_is_told_in_one_line():
    def compiled():
        raise ImportError("/cache/main.so: file too short\nSet TORCHDYNAMO_VERBOSE=1 for pages more")

    with pytest.raises(MinidsError) as refused:
        peers.failing_in_one_line(compiled)()
    assert "file too short" in str(refused.value) and "--against torch" in str(refused.value) and "\n" not in str(refused.value)
    assert peers.failing_in_one_line(lambda: 3)() == 3
