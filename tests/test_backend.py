"""Which code serves an operation, and who decides."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import support

import minids
from minids import backend, ops
from minids.backend import backend_name, op, replaced, use_backend
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


def test_the_package_of_operations_lists_every_module_so_that_an_editor_finds_it():
    """``op`` is the package ``minids.ops`` to an editor and to mypy: what is missing there has neither jump nor types."""
    modules = sorted(path.stem for path in (ROOT / "minids" / "ops").glob("[!_]*.py"))
    listed = [
        node for node in ast.parse(Path(ops.__file__).read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)
    ]
    assert [alias.name for node in listed for alias in node.names] == modules
    for name in modules:
        assert getattr(ops, name).__name__ == f"minids.ops.{name}"
        assert getattr(op, name).name == name
        constants = {n: v for n, v in vars(getattr(ops, name)).items() if not inspect.isfunction(v) and not n.startswith("_")}
        assert all(getattr(getattr(op, name), n) is value for n, value in constants.items())


def public_functions(module):
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }


def arguments(function):
    """Name, default and kind of each; of a ``partial`` those that it leaves open."""
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.default, p.kind) for p in parameters if p.name not in getattr(function, "keywords", {})]


TWINS = sorted(path.stem for path in (ROOT / "minids" / "kernels").glob("[!_]*.py") if path.stem not in WHOLE_STEPS)


@pytest.mark.parametrize("name", TWINS)
def test_every_twin_takes_what_its_original_takes_with_the_same_defaults(name):
    """A twin may leave out functions that do not pay, and arguments by which others stand in for the original's parts."""
    original, twin = (importlib.import_module(f"minids.{package}.{name}") for package in ("ops", "kernels"))
    shared = [function for function in public_functions(original) if hasattr(twin, function)]
    assert shared, f"kernels/{name}.py has no function of ops/{name}.py"
    for function in shared:
        wanted, taken = (arguments(getattr(module, function)) for module in (original, twin))
        assert wanted[: len(taken)] == taken, f"{name}.{function} takes other arguments, or other defaults, when compiled"
        left = [argument for argument, default, _ in wanted[len(taken) :] if default is inspect.Parameter.empty]
        assert not left, f"{name}.{function}: the compiled one does not take {left}"


@pytest.mark.parametrize("name", ["fp8_linear", "fp8_feed_forward", "mtp_combine"])
@pytest.mark.parametrize("function", ["forward", "backward"])
def test_a_twin_that_takes_its_originals_steps_does_them_with_compiled_parts(name, function):
    """With the original's own parts it would be as right, and slow."""
    (parts,) = getattr(importlib.import_module(f"minids.kernels.{name}"), function).keywords.values()
    for part in parts if isinstance(parts, tuple) else [parts]:
        assert (part.__name__ if inspect.ismodule(part) else part.__module__).startswith("minids.kernels."), part


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


def test_what_is_replaced_is_seen_by_those_who_looked_it_up_before_and_comes_back():
    from minids.ops import rmsnorm

    right = rmsnorm.forward
    with use_backend("numpy"):
        held = op.rmsnorm
        assert held.forward is right
        for owner in (op.rmsnorm, rmsnorm):
            with pytest.raises(ZeroDivisionError), replaced(owner, forward=lambda x, gain, eps: "changed"):
                assert held.forward(1, 2, 3) == rmsnorm.forward(1, 2, 3) == "changed"
                raise ZeroDivisionError
            assert held.forward is rmsnorm.forward is right
    with pytest.raises(KeyError), replaced(op.rmsnorm, forwards=right):
        pass


def test_a_look_up_during_which_another_backend_is_chosen_is_not_kept(monkeypatch):
    """Functions are kept once looked up: one found for the backend before must not stay for the one after."""

    def asked_just_before_another_thread_chooses():
        backend._forget()
        return "numpy"

    with use_backend("numba"):
        monkeypatch.setattr(backend, "backend_name", asked_just_before_another_thread_chooses)
        assert op.swiglu.forward is ops.swiglu.forward
        monkeypatch.undo()
        assert op.swiglu.forward.__module__ == "minids.kernels.swiglu"


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
