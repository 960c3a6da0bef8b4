"""The doctor tells what is there, and gives the right advice for machines that are played."""

import json
from dataclasses import replace

import pytest

from minids.cli import main
from minids.lab.bench.doctor import Facts, advice, examined, machine_in_words, table

WELL = Facts(
    system="Linux 6 on x86_64", python="3.12", cpu="AMD EPYC 9B45", cores=2, load=0.2, avx512=True, better_kernels="SkylakeX",
    coretype="SkylakeX", blas="openblas 0.3.31", blas_kernels="SkylakeX", blas_threads=2, blas_in_kernels=True, backend="numba",
    numba_error=None, jit_disabled=False, threading_layer="default", cache="/somewhere", cache_megabytes=3.0, cache_warm=True,
    versions={"numpy": "2.4"},
)  # fmt: skip

ILL = {
    "no Numba": (
        dict(numba_error="No module named 'numba'", backend="numpy", cache=None, blas_in_kernels=False),
        "pip install",
    ),
    "NumPy asked for": (dict(backend="numpy"), "MINIDS_BACKEND=numpy is set"),
    "no compiling": (dict(jit_disabled=True), "NUMBA_DISABLE_JIT"),
    "NumPy came first": (dict(blas_kernels="Haswell", coretype=None), "NumPy was imported before minids. Import minids first"),
    "the user chose": (dict(blas_kernels="Haswell", coretype="Haswell"), "OPENBLAS_CORETYPE=Haswell is set"),
    "nowhere to keep kernels": (dict(cache=None), "NUMBA_CACHE_DIR"),
    "another BLAS": (dict(blas_in_kernels=False), "cannot be called from kernels"),
    "a busy machine": (dict(load=3.7), "3.7 processes wanted the 2 cores"),
}


def test_nothing_to_say_where_all_is_well():
    assert advice(WELL) == []
    assert "Nothing is known that would be faster here." in table(WELL)


@pytest.mark.parametrize("case", ILL)
def test_each_ill_has_its_one_piece_of_advice(case):
    changes, said = ILL[case]
    found = advice(replace(WELL, **changes))
    assert len(found) == 1 and said in found[0], found
    assert f"  - {found[0]}" in table(replace(WELL, **changes))


def test_a_processor_whose_kernels_are_chosen_well_needs_no_variable():
    plain = replace(WELL, avx512=False, better_kernels=None, coretype=None, blas_kernels="Haswell")
    assert advice(plain) == []
    assert "without AVX-512" in table(plain)


def test_the_machine_in_words():
    line = "AMD EPYC 9B45, AVX-512, 2 cores; openblas 0.3.31 with SkylakeX kernels; Python 3.12, numpy 2.4"
    assert machine_in_words(WELL) == f"{line}; 0.2 processes wanted a core before."
    other = replace(WELL, avx512=False, cores=1, load=None, blas_kernels=None)
    assert machine_in_words(other) == "AMD EPYC 9B45, 1 core; openblas 0.3.31 with unknown kernels; Python 3.12, numpy 2.4."


def test_a_system_that_tells_no_load():
    assert advice(replace(WELL, load=None)) == []


def test_this_machine_is_examined(capsys):
    facts = examined()
    assert facts.cores >= 1 and facts.versions["numpy"]
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert facts.cpu in shown and facts.versions["numpy"] in shown and facts.blas in shown
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cpu"] == facts.cpu
