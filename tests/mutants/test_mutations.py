"""The mistakes that the mutation run puts in are single, different from the source, and the same for the same seed."""

import ast
import json
from collections import Counter

import pytest
from mutations import mutants, sample
from which_tests import Measured, users

SOURCE = '''"""Words, 1 + 2."""
import numpy as np

def forward(x: "1 + 1", scale=2.5, causal=True):
    """Nor here: 3 - 2."""
    y = np.zeros(x.shape, np.float32)
    for t in range(1, len(x)):
        y[t] += scale * x[t] - x[t - 1]
        if t >= 3 and not causal:
            raise ValueError(f"é {t - 1}")
    return np.matmul(y[:2], x, out=y) if causal else -y
'''


def test_every_mutant_is_one_change_of_the_source_that_python_can_read():
    source = SOURCE.encode()
    found = list(mutants("m.py", source))
    for mutant in found:
        changed = mutant.applied(source)
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source)), mutant
        before, after = source.splitlines(), changed.splitlines()
        assert [i for i, pair in enumerate(zip(before, after, strict=True), 1) if pair[0] != pair[1]] == [mutant.line]
        assert mutant.diff(source).splitlines()[-2:] == [
            f"-{before[mutant.line - 1].decode()}",
            f"+{after[mutant.line - 1].decode()}",
        ]
    assert {mutant.line for mutant in found} == {4, 6, 7, 8, 9, 11}, "words, types and messages stay as they are"


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        (4, "scale=3.75"), (4, "causal=False"), (6, "np.float64"), (6, "np.zeros(np.float32, x.shape)"),
        (7, "range(2, len(x))"),
        (8, "y[t] = scale"), (8, "y[t] -= scale"), (8, "pass"), (8, "scale / x[t]"), (8, "y[t] += (scale * x[t])\n"),
        (8, "x[t] + x[t - 1]"), (9, "t > 3"), (9, "t < 3"), (9, "or not causal"), (9, "and causal"), (9, "not (t >= 3"),
        (11, "y[:2 + 1]"), (11, "y[1:2]"), (11, "matmul(x, y[:2]"), (11, "matmul(y[:2], x)"), (11, "else y\n"),
        (11, "return (-y)"),
    ],
)  # fmt: skip
def test_the_slips_of_a_hand_are_among_them(line, changed):
    source = SOURCE.encode()
    lines = [mutant.applied(source).decode().splitlines(keepends=True)[line - 1] for mutant in mutants("m.py", source)]
    assert any(changed in text for text in lines), changed


def test_a_sample_is_drawn_by_its_seed_and_has_as_many_of_each_kind_as_there_are(tmp_path):
    (tmp_path / "m.py").write_text(SOURCE, encoding="utf-8")
    drawn = sample(tmp_path, ["m.py"], 20, seed=1)
    assert drawn == sample(tmp_path, ["m.py"], 20, seed=1) != sample(tmp_path, ["m.py"], 20, seed=2)
    assert len(set(drawn)) == 20 and len({mutant.name for mutant in drawn}) == 20
    assert max(Counter(mutant.kind for mutant in drawn).values()) <= 3
    everything = sample(tmp_path, ["m.py"], 10_000, seed=1)
    assert set(everything) == set(mutants("m.py", SOURCE.encode()))


def test_a_line_meets_the_mirrored_tests_first_then_the_quickest_that_run_it(tmp_path):
    (tmp_path / "minids/kernels").mkdir(parents=True)
    (tmp_path / "minids/ops").mkdir()
    (tmp_path / "minids/ops/rope.py").write_text("x = 1\n")
    (tmp_path / "minids/kernels/rope.py").write_text("from minids.ops.rope import x\n")
    (tmp_path / "minids/kernels/decode.py").write_text("from minids.kernels.rope import x\n")
    assert users(tmp_path, "minids/ops/rope.py") == {
        f"minids/{name}.py" for name in ("ops/rope", "kernels/rope", "kernels/decode")
    }
    names = [
        "tests/a/test_slow.py::t",
        "tests/b/test_quick.py::t",
        "tests/kernels/test_kernel_rope.py::t",
        "tests/ops/test_rope.py::t",
    ]
    known = {
        "tests": names, "seconds": [30.0, 1.0, 9.0, 0.1], "failed": [], "sources": {},
        "lines": {"minids/ops/rope.py": {"1": [0, 1, 3]}, "minids/kernels/decode.py": {"1": [2, 1]}},
    }  # fmt: skip
    (tmp_path / "lines.json").write_text(json.dumps(known))
    tests = Measured(tmp_path, tmp_path / "lines.json")
    assert tests.of_line("minids/ops/rope.py", 1, 60) == ([[names[3]], [names[1], names[0]]], 0)
    assert tests.of_line("minids/ops/rope.py", 1, 5) == ([[names[3]], [names[1]]], 1), "no more than may be spent"
    assert tests.of_line("minids/kernels/rope.py", 1, 60) == ([[names[2]], [names[1]]], 0), "compiled: by its users"
