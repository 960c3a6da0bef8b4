"""Which code serves an operation, and who decides."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import support

import minids
from minids import backend
from minids.backend import backend_name, op, use_backend
from minids.errors import MinidsError

ROOT = Path(minids.__file__).parents[1]
WITHOUT_NUMBA = "import sys; sys.modules['numba'] = None\n"  # importing it then raises ImportError
STEP = """
import numpy as np
rng = np.random.default_rng(0)
config = minids.ModelConfig.preset("tiny").replace(hidden_size=16, intermediate_size=24, num_hidden_layers=2)
tokens = rng.integers(0, 250, (2, 9))
minids.DeepSeekV3(config).loss_and_grads(tokens, tokens)
"""


def python(code: str, **environment) -> subprocess.CompletedProcess:
    import os

    cleared = {name: value for name, value in os.environ.items() if name != "MINIDS_BACKEND"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={**cleared, **environment}
    )


def printed(code: str, **environment) -> str:
    result = python(code, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_block_decides_and_what_was_before_comes_back():
    with use_backend("numpy"):
        assert backend_name() == "numpy"
        assert op.rmsnorm.forward.__module__ == "minids.ops.rmsnorm"
        with use_backend("numba"):
            assert op.rmsnorm.forward.__module__ == "minids.kernels.rmsnorm"
        assert op.rmsnorm.forward.__module__ == "minids.ops.rmsnorm"


def test_what_was_before_comes_back_after_an_error_too():
    with use_backend("numpy"):
        with pytest.raises(ZeroDivisionError), use_backend("numba"):
            raise ZeroDivisionError
        assert backend_name() == "numpy"


def test_an_operation_without_a_twin_is_served_by_ops_and_constants_always_are():
    with use_backend("numba"):
        assert op.yarn.yarn_frequencies.__module__ == "minids.ops.yarn"
        assert op.bias_update.updated.__module__ == "minids.ops.bias_update"
        assert op.cross_entropy.IGNORE == -100


WHOLE_STEPS = {"decode"}  # a step of all layers in one kernel: the original is inference/decoder.py


def test_every_twin_has_an_original_with_the_same_functions():
    """A twin may leave out functions that do not pay, and arguments by which others stand in for the original's parts."""
    import importlib
    import inspect

    for path in (ROOT / "minids" / "kernels").glob("[!_]*.py"):
        if path.stem in WHOLE_STEPS:
            continue
        original = importlib.import_module(f"minids.ops.{path.stem}")
        twin = importlib.import_module(f"minids.kernels.{path.stem}")
        shared = 0
        for name, function in vars(original).items():
            if not inspect.isfunction(function) or function.__module__ != original.__name__ or not hasattr(twin, name):
                continue
            if name.startswith("_"):
                continue
            shared += 1
            wanted = inspect.signature(function).parameters
            taken = list(inspect.signature(getattr(twin, name)).parameters)
            assert list(wanted)[: len(taken)] == taken, f"{path.stem}.{name} takes other arguments when compiled"
            left = [wanted[argument] for argument in list(wanted)[len(taken) :]]
            assert all(argument.default is not inspect.Parameter.empty for argument in left), f"{path.stem}.{name}"
        assert shared, f"kernels/{path.stem}.py has no function of ops/{path.stem}.py"


def test_an_unknown_operation_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="rmsnrom"):
        _ = op.rmsnrom


def test_an_unknown_backend_is_refused_in_one_line():
    with pytest.raises(MinidsError) as error, use_backend("cuda"):
        pass
    assert str(error.value) == "backend = 'cuda': must be one of numpy, numba"


def test_the_environment_decides_for_a_process_and_an_unknown_name_there_is_refused():
    code = "import minids.backend as b; print(b.backend_name())"
    assert printed(code, MINIDS_BACKEND="numpy") == "numpy"
    assert printed(code, MINIDS_BACKEND="numba") == "numba"
    result = python(code, MINIDS_BACKEND="fast")
    assert result.stderr.strip().endswith("MINIDS_BACKEND = 'fast': must be one of numpy, numba")


def test_numba_is_the_default_where_it_is_installed():
    assert printed("import minids.backend as b; print(b.backend_name())", MINIDS_BACKEND="") == "numba"


def test_importing_minids_and_building_a_model_imports_no_numba():
    code = "import sys, minids; minids.DeepSeekV3(minids.ModelConfig.preset('tiny')); print('numba' in sys.modules)"
    assert printed(code) == "False"


def test_without_numba_everything_runs_on_numpy():
    code = WITHOUT_NUMBA + "import minids, minids.backend as b\n" + STEP + "print(b.backend_name())"
    assert printed(code) == "numpy"


def test_asking_for_numba_where_it_is_missing_is_refused_in_one_line():
    code = WITHOUT_NUMBA + "import minids.backend as b\nwith b.use_backend('numba'): pass"
    last = python(code).stderr.strip().splitlines()[-1]
    assert "backend = 'numba': Numba cannot be imported (" in last and last.endswith("install it, or say numpy")


def test_the_numpy_backend_never_imports_numba():
    code = "import sys, minids\n" + STEP + "print('numba' in sys.modules)"
    assert printed(code, MINIDS_BACKEND="numpy") == "False"


def test_a_change_to_an_operation_is_seen_by_those_who_looked_it_up_before(monkeypatch):
    from minids.ops import rmsnorm

    with use_backend("numpy"):
        held = op.rmsnorm
        assert held.forward is rmsnorm.forward
        monkeypatch.setattr(rmsnorm, "forward", lambda x, gain, eps: "changed")
        assert held.forward(1, 2, 3) == "changed"


def test_names_are_those_of_the_documentation():
    assert backend.BACKENDS == ("numpy", "numba")


def test_an_unknown_backend_is_refused_where_it_is_named():
    with pytest.raises(MinidsError, match="backend = 'torch'"):
        use_backend("torch")


def test_a_mistake_is_made_whatever_backend_serves():
    model, tokens = support.build(), np.arange(8).reshape(1, 8)
    with use_backend("numba"):
        right = model.logits(tokens)
        with minids.lab.mistakes.made(minids.lab.mistakes.softmax_gate):
            wrong = model.logits(tokens)
        assert np.array_equal(model.logits(tokens), right)
    assert np.abs(wrong - right).max() > 1e-3
