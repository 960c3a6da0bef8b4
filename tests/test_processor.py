"""OpenBLAS is told which kernels to use only where that is safe; the processors are played."""

import subprocess
import sys
from pathlib import Path

import pytest

import minids
from minids.processor import KERNELS, VARIABLE, Processor, better_kernels, choose_openblas_kernels, processor

AVX512 = frozenset(["avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma"])
ZEN3 = Processor("AuthenticAMD", "AMD EPYC 7B13", frozenset({"avx2", "fma"}))
ZEN5 = Processor("AuthenticAMD", "AMD EPYC 9B45", AVX512)
INTEL = Processor("GenuineIntel", "Intel Xeon Platinum 8481C", AVX512)

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9B45
flags\t\t: fpu avx2 avx512f avx512cd

processor\t: 1
vendor_id\t: AnotherVendor
flags\t\t: fpu
"""


def test_set_on_amd_with_avx512_before_numpy():
    environment = {}
    assert choose_openblas_kernels(environment, ZEN5, numpy_imported=False)
    assert environment == {VARIABLE: KERNELS}


@pytest.mark.parametrize(
    ("why", "machine", "environment", "numpy_imported"),
    [
        ("no AVX-512: its instructions would end the process", ZEN3, {}, False),
        ("OpenBLAS recognises Intel's processors by itself", INTEL, {}, False),
        ("the user has chosen", ZEN5, {VARIABLE: "Haswell"}, False),
        ("the user has chosen nothing, in so many words", ZEN5, {VARIABLE: ""}, False),
        ("NumPy has loaded its BLAS already", ZEN5, {}, True),
        ("the system does not tell", Processor("", "", frozenset()), {}, False),
    ],
)
def test_left_alone(why, machine, environment, numpy_imported):
    before = dict(environment)
    assert not choose_openblas_kernels(environment, machine, numpy_imported), why
    assert environment == before, why


@pytest.mark.parametrize("missing", sorted(flag for flag in AVX512 if flag.startswith("avx512")))
def test_every_part_of_avx512_is_needed(missing):
    assert better_kernels(ZEN5._replace(flags=AVX512 - {missing})) is None


def test_the_first_core_is_read_from_the_systems_text():
    assert processor(CPUINFO) == Processor("AuthenticAMD", "AMD EPYC 9B45", frozenset(["fpu", "avx2", "avx512f", "avx512cd"]))
    assert processor("") == Processor("", "", frozenset())


def test_a_system_without_that_file(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr("minids.processor.Path.read_text", missing)
    assert processor() == Processor("", "", frozenset())


def test_importing_minids_decides_before_numpy_is_there():
    code = """
import sys
order = []
class Watch:
    def find_spec(self, name, *_):
        order.append(name)
sys.meta_path.insert(0, Watch())
import minids
print(order.index("minids.processor") < order.index("numpy"))
"""
    root = Path(minids.__file__).parents[1]
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert shown.stdout.strip() == "True"
