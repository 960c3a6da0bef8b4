"""The logits of transformers that notebook 12 carries are those of the golden file, to the last bit."""

import ast
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent.parent / "golden" / "base.npz"


def test_the_notebook_carries_the_golden_logits(builder):
    source = next(builder.SOURCES.glob("12_*.py")).read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TRANSFORMERS":
            carried = ast.literal_eval(node.value.args[0])
            break
    else:
        raise AssertionError("notebook 12 no longer assigns TRANSFORMERS")
    with np.load(GOLDEN) as golden:
        assert carried == golden["logits"][-1, -1, :8].tolist()
