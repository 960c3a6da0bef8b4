"""One safetensors file: every type against the reference library or ml_dtypes, and every lie in a header refused."""

import json
import os
import re
import struct

import numpy as np
import pytest
import safetensors.numpy
from disk_samples import TYPES, encoded, file_bytes, header, write_raw

from minids.checkpoint.dtypes import FLOATS
from minids.checkpoint.tensor_file import TensorFile, write_tensor_file
from minids.errors import MinidsError

RNG = np.random.default_rng(0)


def numbers(dtype: str, shape: tuple) -> np.ndarray:
    if dtype == "BOOL":
        return RNG.integers(0, 2, shape).astype(bool)
    if dtype not in FLOATS:
        return RNG.integers(0, 100, shape)
    return RNG.normal(0, 2, shape)


@pytest.mark.parametrize("shape", [(3, 5), (7,), (2, 3, 4), (), (0, 4)])
@pytest.mark.parametrize("dtype", TYPES)
def test_reads_every_type_and_shape(tmp_path, dtype, shape):
    array = np.asarray(numbers(dtype, shape))
    # "a" has an odd number of bytes, so "b" is not aligned, as a file may have it
    path = write_raw(tmp_path / "x.safetensors", {"a": encoded(np.zeros(3), "I8"), "b": encoded(array, dtype)})
    file = TensorFile(path)
    assert file.names() == ["a", "b"]
    assert file.info("b")[:2] == (dtype, shape)
    assert file.info("b").nbytes == array.size * np.dtype(TYPES[dtype]).itemsize
    stored = array.astype(TYPES[dtype])
    read = file.read("b")
    expected = stored.astype(np.float32) if dtype in FLOATS else stored
    assert read.dtype == expected.dtype
    np.testing.assert_array_equal(read, expected)
    assert file.raw("b").tobytes() == stored.tobytes()
    if dtype in FLOATS:
        np.testing.assert_array_equal(file.read("b", dtype=np.float64), stored.astype(np.float64))


def test_pieces_join_seamlessly_in_a_large_tensor(tmp_path):
    array = RNG.normal(0, 1, (1031, 701))
    tensors = {dtype: encoded(array, dtype) for dtype in sorted(FLOATS)}
    file = TensorFile(write_raw(tmp_path / "x.safetensors", tensors))
    for dtype in tensors:
        expected = array.astype(TYPES[dtype]).astype(np.float32)
        np.testing.assert_array_equal(file.read(dtype), expected, f"{dtype} whole")
        np.testing.assert_array_equal(file.read(dtype, slice(40, 900)), expected[40:900], f"{dtype}, a slice")
        np.testing.assert_array_equal(file.read(dtype, [5, 1000, 5]), expected[[5, 1000, 5]], f"{dtype}, chosen rows")
        np.testing.assert_array_equal(file.read(dtype, slice(2, 9), 3), expected[5], f"{dtype}, an index of a slice")
    out = np.empty(array.shape, np.float32)
    assert file.read("F16", out=out) is out
    with pytest.raises(ValueError, match="C-contiguous"):
        file.read("F16", out=np.empty(array.shape[::-1], np.float32).T)


def test_a_result_is_the_callers_own(tmp_path):
    file = TensorFile(write_raw(tmp_path / "x.safetensors", {"a": encoded(np.ones(4), "F32"), "b": encoded(np.ones(4), "I32")}))
    for name in "ab":
        file.read(name)[:] = 7
        assert (file.read(name) == 1).all(), "writing to a result changed the file's view"
    with pytest.raises(ValueError, match="read-only"):
        file.raw("a")[:] = 7


def test_the_reference_library_reads_what_is_written(tmp_path):
    tensors = {
        "f32": RNG.normal(0, 1, (5, 3)).astype(np.float32),
        "fortran": np.asfortranarray(RNG.normal(0, 1, (5, 3)).astype(np.float32)),
        "strided": RNG.normal(0, 1, (6, 8)).astype(np.float32)[::2, 1::3],
        "big endian": np.arange(5, dtype=">i4"),
        "i64": np.arange(4),
        "bool": np.array([True, False]),
        "scalar": np.float32(3),
        "empty": np.zeros((0, 3), np.float32),
    }
    write_tensor_file(tmp_path / "x.safetensors", tensors)
    read = safetensors.numpy.load_file(tmp_path / "x.safetensors")
    assert set(read) == set(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(read[name], array, name)
    with safetensors.safe_open(tmp_path / "x.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}, "transformers refuses a file without this"


def test_what_the_reference_library_writes_is_read(tmp_path):
    tensors = {"a": RNG.normal(0, 1, (5, 3)).astype(np.float16), "b": RNG.normal(0, 1, 7), "c": np.arange(3, dtype=np.uint8)}
    safetensors.numpy.save_file(tensors, tmp_path / "x.safetensors", {"format": "np", "note": "two keys"})
    file = TensorFile(tmp_path / "x.safetensors")
    for name, array in tensors.items():
        np.testing.assert_array_equal(file.read(name, dtype=np.float64), array, name)


@pytest.mark.parametrize("floats", ["F32", "BF16", "F16", "F64"])
def test_floats_are_stored_as_asked_and_integers_as_they_are(tmp_path, floats):
    array = RNG.normal(0, 1, (4, 6))
    write_tensor_file(tmp_path / "x.safetensors", {"x": array, "n": np.arange(3, dtype=np.int16)}, floats)
    file = TensorFile(tmp_path / "x.safetensors")
    assert (file.info("x").dtype, file.info("n").dtype) == (floats, "I16")
    through = array.astype(np.float32) if floats == "BF16" else array
    np.testing.assert_array_equal(file.read("x", dtype=np.float64), through.astype(TYPES[floats]))


def test_the_same_tensors_give_the_same_bytes_in_any_order(tmp_path):
    tensors = {name: RNG.normal(0, 1, 5).astype(np.float32) for name in "cab"}
    write_tensor_file(tmp_path / "1", tensors)
    write_tensor_file(tmp_path / "2", dict(sorted(tensors.items())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_every_tensor_is_aligned(tmp_path):
    write_tensor_file(tmp_path / "x", {"a": np.zeros(3, np.int8), "b": np.zeros(3, np.float32), "c": np.zeros(1, np.int64)})
    raw = (tmp_path / "x").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    assert length % 8 == 0
    offsets = {n: e["data_offsets"][0] for n, e in json.loads(raw[8 : 8 + length]).items() if n != "__metadata__"}
    assert offsets == {"c": 0, "b": 8, "a": 20}


def test_unwritable_types_are_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(MinidsError, match="complex128"):
        write_tensor_file(tmp_path / "x", {"a": np.zeros(3), "b": np.zeros(3, complex)})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_tensor_file(path, {"a": np.ones(3)})
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MinidsError, match="No space left"):
        write_tensor_file(path, {"a": np.zeros(3)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x"], "a temporary file was left behind"


# Refusals. One good file, and every way of lying about it.

GOOD = {"a": encoded(np.zeros((2, 3)), "F32"), "b": encoded(np.zeros(4), "F16")}
DATA = b"".join(data for _, _, data in GOOD.values())  # 24 + 8 bytes


def lie(change) -> bytes:
    head = header(GOOD)
    return file_bytes(change(head) or head, DATA)


def entry(**fields):
    return lambda head: head["a"].update(fields)


BAD = {
    "empty file": (b"", "truncated"),
    "seven bytes": (b"1234567", "truncated"),
    "header beyond the file": (struct.pack("<Q", 1000) + b"{}", "truncated"),
    "header of an exabyte": (struct.pack("<Q", 1 << 60), "not a safetensors file"),
    "header above the limit": (struct.pack("<Q", 100_000_001), "not a safetensors file"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "no json": (file_bytes(b"{nonsense"), "not valid JSON"),
    "no object": (file_bytes(b"[1]"), "must be a JSON object"),
    "not utf-8": (file_bytes(b'{"\xff": 1}'), "UTF-8"),
    "nested json bomb": (file_bytes(b'{"a":' + b"[" * 100_000), "nested too deeply"),
    "nested shape": (lie(entry(shape=json.loads("[" * 400 + "]" * 400))), "must have dtype, shape"),
    "number of a million digits": (file_bytes(b'{"a":' + b"9" * 1_000_000 + b"}"), "not valid JSON"),
    "nan": (file_bytes(b'{"a": NaN}'), "NaN"),
    "duplicate key": (file_bytes(b'{"a": 1, "a": 2}'), "'a' is given twice"),
    "truncated data": (lie(lambda head: None)[:-1], "truncated or damaged: the tensors have 32 bytes, the file holds 31"),
    "data too long": (lie(lambda head: None) + b"x", "the file holds 33"),
    "no such dtype": (lie(entry(dtype="F4")), "unknown dtype 'F4'"),
    "dtype no string": (lie(entry(dtype=["F32"])), "must have dtype"),
    "wrong dtype": (lie(entry(dtype="F16")), "12 bytes"),
    "wrong shape": (lie(entry(shape=[2, 4])), "32 bytes"),
    "negative dimension": (lie(entry(shape=[-2, -3])), "shape"),
    "huge dimension": (lie(entry(shape=[1 << 60, 0])), "shape"),
    "overflowing product": (lie(entry(shape=[1 << 40, 1 << 40])), "bytes, but"),
    "too many dimensions": (lie(entry(shape=[1] * 33)), "shape"),
    "fractional dimension": (lie(entry(shape=[2.0, 3])), "shape"),
    "boolean dimension": (lie(entry(shape=[True, 6])), "shape"),
    "shape no list": (lie(entry(shape="ab")), "shape"),
    "offsets out of the file": (lie(entry(data_offsets=[24, 48])), "expected"),
    "offsets reversed": (lie(entry(data_offsets=[24, 0])), "span -24"),
    "negative offset": (lie(entry(data_offsets=[-24, 0])), "expected 0"),
    "three offsets": (lie(entry(data_offsets=[0, 8, 24])), "must have dtype"),
    "overlap": (lie(entry(data_offsets=[8, 32])), "expected"),
    "hole": (lie(lambda head: {"b": head["b"]}), "begins at byte 24, expected 0"),
    "not covering": (lie(lambda head: {"a": head["a"]}), "the file holds 32"),
    "field missing": (lie(lambda head: head["a"].pop("shape") and None), "must have dtype, shape"),
    "entry no object": (lie(lambda head: {**head, "a": 5}), "must have dtype"),
    "name that breaks lines": (lie(lambda head: {"a\n\ud800b" * 50: {**head["a"], "dtype": "?"}}), "unknown dtype"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_lying_file_is_refused_in_one_line(tmp_path, case):
    raw, words = BAD[case]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(raw)
    with pytest.raises(MinidsError) as caught:
        TensorFile(path)
    message = str(caught.value)
    assert words in message and "bad.safetensors" in message
    assert "\n" not in message and len(message) < 400 + len(str(path)), message
    message.encode()


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    for name, words in (("pipe", "not a regular file"), (".", "not a regular file"), ("absent", "No such file")):
        with pytest.raises(MinidsError, match=words):
            TensorFile(tmp_path / name)


def test_an_unknown_tensor_is_named(tmp_path):
    file = TensorFile(write_raw(tmp_path / "x.safetensors", GOOD))
    with pytest.raises(MinidsError, match="no tensor 'zzz'"):
        file.read("zzz")


def test_a_file_that_shrank_after_opening_is_refused(tmp_path):
    path = write_raw(tmp_path / "x.safetensors", GOOD)
    file = TensorFile(path)
    os.truncate(path, 20)
    with pytest.raises(MinidsError, match="changed its size"):
        file.read("a")


def test_damage_anywhere_is_refused_or_read_but_never_crashes(tmp_path):
    rng = np.random.default_rng(7)
    tensors = {f"layer.{i}.{dtype}": encoded(numbers(dtype, (3, 4)), dtype) for i, dtype in enumerate(TYPES)}
    whole = write_raw(tmp_path / "good.safetensors", tensors).read_bytes()
    head = struct.unpack("<Q", whole[:8])[0] + 8
    damaged = [whole[:cut] for cut in rng.integers(0, len(whole), 100)]
    for position in [*range(8), *rng.integers(8, head, 300), *rng.integers(head, len(whole), 50)]:
        changed = bytearray(whole)
        changed[position] ^= int(rng.integers(1, 256))
        damaged.append(bytes(changed))
    for position in rng.integers(8, head, 50):  # digits stay digits: the header stays JSON and only its meaning changes
        digits = [m.start() for m in re.finditer(rb"\d", whole[:head])]
        changed = bytearray(whole)
        changed[digits[position % len(digits)]] = int(rng.integers(48, 58))
        damaged.append(bytes(changed))
    path, refused = tmp_path / "damaged.safetensors", 0
    for raw in damaged:
        path.write_bytes(raw)
        try:
            file = TensorFile(path)
            total = sum(file.read(name).nbytes for name in file.names())
            assert total < 10_000
        except MinidsError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 250, "damage to the header went unnoticed"
