"""What the bench of a training step measures is the training step."""

from contextlib import ExitStack

import pytest

from minids.bench import train
from minids.bench.sizes import SIZES, A, B, Size
from minids.cli import main
from minids.errors import MinidsError
from minids.model import DeepSeekV3

SMALL = Size(A.replace(hidden_size=16, num_hidden_layers=2, intermediate_size=24, moe_intermediate_size=8), 4, 8)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(SIZES, "A-12x64", SMALL)
    monkeypatch.setattr(train, "sgemm_peak", lambda threads: 1e11)


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
        work = found["sizes"]["A-12x64"]["flops_per_step"]
        assert row["share_of_sgemm"] == pytest.approx(work / row["milliseconds"] * 1e3 / 1e11)
    table = train.table(found)
    assert "numba" in table and "100 GFLOP/s" in table


def test_a_peer_that_is_not_installed_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(train.peers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MinidsError, match="torch and transformers cannot be imported"):
        train.run(("A-12x64",), 1, 1, "torch")


def test_the_command_prints_json(small, capsys):
    assert main(["bench", "train", "--sizes", "A-12x64", "--rounds", "1", "--json"]) == 0
    assert '"tokens_per_second"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "rounds = 0: must be at least 1"),
        (["--threads", "-1"], "threads = -1"),
        (["--sizes", "C"], "--sizes"),
    ],
)
def test_bad_options_are_one_line(arguments, message, capsys):
    assert main(["bench", "train", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
