"""What a run's numbers depend on besides its settings is kept, and a change of it is told when the run is resumed."""

import json

import numpy as np
import pytest
from small_run import close, start_or_resume, write_text
from threadpoolctl import threadpool_info

from minids.processor import Processor
from minids.training import surroundings
from minids.training.run import Run


def test_a_run_keeps_what_it_was_made_with(tmp_path):
    close(start_or_resume(tmp_path / "run", write_text(tmp_path)))
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["surroundings"]
    assert kept == surroundings.surroundings() and kept["numpy"] == np.__version__
    blas = next((library for library in threadpool_info() if library["user_api"] == "blas"), None)
    if blas:  # Apple's is not seen by threadpoolctl
        assert kept["blas_threads"] == "1" and blas["architecture"] in kept["blas"], "training holds BLAS to one thread"


AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}


@pytest.mark.parametrize(("flags", "bits"), [({"sse2"}, "128"), ({"avx2"}, "256"), ({"avx2", *AVX512}, "512")])
def test_the_width_of_vectors_is_that_of_the_processor(monkeypatch, flags, bits):
    monkeypatch.setattr(surroundings, "processor", lambda: Processor("x", "Some CPU", frozenset(flags)))
    found = surroundings.surroundings()
    assert found["vector_bits"] == bits and found["processor"] == "Some CPU"


def test_where_the_system_does_not_tell_nothing_is_made_up(monkeypatch):
    monkeypatch.setattr(surroundings, "processor", lambda: Processor("", "", frozenset()))
    monkeypatch.setattr(surroundings, "threadpool_info", lambda: [])
    assert not {"processor", "vector_bits", "blas", "blas_threads"} & surroundings.surroundings().keys()


@pytest.mark.parametrize(
    ("name", "other"),
    [("blas", "openblas 0.1 Prescott"), ("blas_threads", "8"), ("processor", "a slow one"), ("vector_bits", "64")],
)
def test_another_processor_or_blas_is_said_when_a_run_is_resumed(tmp_path, name, other):
    close(start_or_resume(tmp_path / "run", write_text(tmp_path)))
    path = tmp_path / "run" / "run.json"
    described = json.loads(path.read_text())
    described["surroundings"][name] = other
    path.write_text(json.dumps(described))
    said = []
    close(Run.resume(tmp_path / "run", say=said.append))
    assert len(said) == 1 and said[0].startswith(f"{name} was {other}, is ") and "not to the bit" in said[0]


def test_in_the_same_surroundings_nothing_is_said(tmp_path):
    close(start_or_resume(tmp_path / "run", write_text(tmp_path)))
    close(Run.resume(tmp_path / "run", say=(said := []).append))
    assert said == []
