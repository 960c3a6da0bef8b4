"""Compiled code is kept where it should be, is dropped when a source changes, and its absence harms nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import minids.kernels
from minids.kernels import _jit

RUN_ONE = """
import numpy as np, minids.kernels, minids.kernels.rmsnorm as r
before = minids.kernels.compiling()
r.forward(np.ones((2, 3), np.float32), np.ones(3, np.float32))
print(before, minids.kernels.compiling(), minids.kernels.CACHE_FOLDER)
"""


def python(code: str, **environment) -> list[str]:
    """What a fresh interpreter prints, word by word. None as a value removes a variable."""
    merged = {**os.environ, **environment}
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(minids.__file__).parents[1],
        env={name: value for name, value in merged.items() if value is not None},
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == "", f"something was printed: {result.stderr}"
    return result.stdout.split()


def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    first = python(RUN_ONE, NUMBA_CACHE_DIR=str(tmp_path))
    assert first[:2] == ["True", "False"], "an empty cache did not announce that it compiles"
    assert Path(first[2]).parent == tmp_path, "NUMBA_CACHE_DIR was not respected"
    second = python(RUN_ONE, NUMBA_CACHE_DIR=str(tmp_path))
    assert second == ["False", "False", first[2]], "a warm cache was not found"


def test_where_no_folder_can_be_written_kernels_are_compiled_and_not_kept(tmp_path):
    blocked = tmp_path / "a file, not a folder"
    blocked.write_text("")
    assert python(RUN_ONE, NUMBA_CACHE_DIR=str(blocked)) == ["True", "False", "None"]
    assert python(RUN_ONE, NUMBA_CACHE_DIR=None, XDG_CACHE_HOME=str(blocked)) == ["True", "False", "None"]


def test_a_user_without_a_home_still_computes(monkeypatch):
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)

    def homeless(*_, **__):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_cache_dir", homeless)
    assert _jit.cache_folder() is None
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: "~/.cache/minids")  # what older versions of it say
    assert _jit.cache_folder() is None


def test_the_folder_follows_the_sources_and_the_version_of_numba(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    for package in ("kernels", "ops"):
        (tmp_path / package).mkdir()
    called, constant = tmp_path / "kernels" / "two.py", tmp_path / "ops" / "three.py"
    called.write_text("b = 1")
    constant.write_text("TINY = 1")
    monkeypatch.setattr(_jit, "__file__", str(tmp_path / "kernels" / "one.py"))
    folders = [_jit.cache_folder()]
    called.write_text("b = 2")
    folders.append(_jit.cache_folder())
    constant.write_text("TINY = 2")
    folders.append(_jit.cache_folder())
    monkeypatch.setattr(_jit.numba, "__version__", "0.0")
    folders.append(_jit.cache_folder())
    assert len(set(folders)) == 4, "an edit in another file, or another Numba, finds the old code"
    assert folders[-1] == _jit.cache_folder(), "the same sources have two folders"


def test_other_users_of_numba_keep_their_cache_folder():
    code = (
        "import numba; before = numba.config.CACHE_DIR; import minids.kernels.rmsnorm; print(numba.config.CACHE_DIR == before)"
    )
    assert python(code) == ["True"]


def test_kernels_run_with_compilation_switched_off(tmp_path):
    assert python(RUN_ONE, NUMBA_DISABLE_JIT="1", NUMBA_CACHE_DIR=str(tmp_path))[:2] == ["False", "False"]


TRAIN_AND_WRITE = """
import hashlib
import numpy as np
import minids
from minids.config import TrainConfig
from minids.training.optimizer import optimizer
from minids.training.workers import Workers
config = minids.ModelConfig.preset("tiny", num_hidden_layers=2)
model = minids.DeepSeekV3(config, seed=0)
tokens = np.random.default_rng(0).integers(0, 256, (4, 65))
workers, stepper = Workers(model, 1), optimizer(model.parameters, TrainConfig())
found = hashlib.sha256()
with workers:
    for _ in range(2):
        workers.zero_grads()
        losses = workers.forward_backward(tokens[:, :-1], tokens[:, 1:], 1.0, 0.3)
        stepper.step(1e-2, workers)
        found.update(repr((losses.total, losses.main, losses.mtp)).encode() + model.parameters.values.tobytes())
for speculative in (False, True):
    for token in minids.inference.generate.stream(model, [1, 2, 3], 8, speculative=speculative):
        found.update(repr((token.id, token.log_probability)).encode())
print(found.hexdigest())
"""


@pytest.mark.slow
def test_the_process_that_compiles_has_the_bits_of_those_that_load(tmp_path):
    surroundings = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "MINIDS_BACKEND": "numba"}
    command = [sys.executable, "-c", TRAIN_AND_WRITE]
    found = [subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=600) for _ in range(2)]
    assert all(done.returncode == 0 for done in found), found[0].stderr
    assert next(tmp_path.rglob("*.nbi"), None), "nothing was compiled into this folder"
    assert found[0].stdout == found[1].stdout
