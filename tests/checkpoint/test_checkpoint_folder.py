"""A checkpoint folder read as one collection of tensors, however it is stored; and written so that no half of it ever loads."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from disk_samples import encoded, fp8_entries, quantised, random_tensors, write_raw, write_sharded

from minids.checkpoint.config_json import read_config_json
from minids.checkpoint.folder import CheckpointFolder, write_folder
from minids.errors import MinidsError

INDEX = "model.safetensors.index.json"
EXPERTS = "model.layers.1.mlp.experts"


def one_file(folder: Path, tensors: dict) -> CheckpointFolder:
    folder.mkdir(exist_ok=True)
    write_raw(folder / "model.safetensors", tensors)
    return CheckpointFolder(folder)


def test_a_single_file(tmp_path):
    arrays = random_tensors({"b": (3, 2), "a": (5,)})
    folder = one_file(tmp_path, {"b": encoded(arrays["b"], "F16"), "a": encoded(arrays["a"], "F32")})
    assert folder.names() == ("a", "b") and "a" in folder and "c" not in folder
    assert (folder.dtype("b"), folder.shape("b")) == ("F16", (3, 2))
    np.testing.assert_array_equal(folder.tensor("b"), arrays["b"].astype(np.float16).astype(np.float32))
    assert folder.tensor("a", dtype=np.float64).dtype == np.float64


def test_shards(tmp_path):
    arrays = random_tensors({"a": (5,), "b": (3, 2), "c": (2,)})
    write_sharded(tmp_path, {"x.safetensors": {"a": encoded(arrays["a"], "F32"), "c": encoded(arrays["c"], "F32")},
                             "y.safetensors": {"b": encoded(arrays["b"], "F32")}})  # fmt: skip
    folder = CheckpointFolder(tmp_path)
    assert folder.names() == ("a", "b", "c")
    for name, array in arrays.items():
        np.testing.assert_array_equal(folder.tensor(name), array)


@pytest.mark.parametrize("shape", [(128, 128), (256, 128), (576, 200), (1, 1), (129, 127), (300, 260), (5, 400)])
def test_fp8_with_ragged_edges(tmp_path, shape):
    entries, meant = fp8_entries("w.weight", random_tensors({"w": shape})["w"], (128, 128))
    folder = one_file(tmp_path, entries)
    assert folder.names() == ("w.weight",), "scales are no tensors of their own"
    np.testing.assert_array_equal(folder.tensor("w.weight"), meant)
    for rows in (slice(shape[0] // 3, shape[0]), slice(None, None, 2), [shape[0] - 1, 0, shape[0] - 1]):
        np.testing.assert_array_equal(folder.tensor("w.weight", rows), meant[rows], f"rows {rows}")


def test_fp8_in_the_block_size_of_the_configuration_with_scales_in_another_shard(tmp_path):
    entries, meant = fp8_entries("w.weight", random_tensors({"w": (10, 23)})["w"], (4, 6))
    write_sharded(
        tmp_path, {"1.safetensors": {"w.weight_scale_inv": entries.pop("w.weight_scale_inv")}, "2.safetensors": entries}
    )
    quantization = {"quant_method": "fp8", "weight_block_size": [4, 6]}
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": quantization}))
    np.testing.assert_array_equal(CheckpointFolder(tmp_path).tensor("w.weight"), meant)


def test_the_scale_multiplies_although_it_is_called_inverse(tmp_path):
    codes = np.array([[0x38, 0x40]], np.uint8)  # 1 and 2
    entries = {"w": ("F8_E4M3", (1, 2), codes.tobytes()), "w_scale_inv": encoded(np.array([[3.0]]), "F32")}
    np.testing.assert_array_equal(one_file(tmp_path, entries).tensor("w"), [[3, 6]])


def fused(width: int, d: int, experts: int = 3) -> dict[str, np.ndarray]:
    return random_tensors({f"{EXPERTS}.gate_up_proj": (experts, 2 * width, d), f"{EXPERTS}.down_proj": (experts, d, width)})


def check_experts(folder: CheckpointFolder, meant: dict[str, np.ndarray], width: int):
    gate_up, down = meant[f"{EXPERTS}.gate_up_proj"], meant[f"{EXPERTS}.down_proj"]
    assert len(folder.names()) == 3 * len(down)
    for e in range(len(down)):
        for name, expected in (("gate_proj", gate_up[e, :width]), ("up_proj", gate_up[e, width:]), ("down_proj", down[e])):
            name = f"{EXPERTS}.{e}.{name}.weight"
            assert folder.shape(name) == expected.shape
            np.testing.assert_array_equal(folder.tensor(name), expected, name)
            np.testing.assert_array_equal(folder.tensor(name, slice(1, 3)), expected[1:3], f"rows of {name}")


def test_fused_experts_appear_one_by_one_gate_rows_first(tmp_path):
    arrays = fused(width=6, d=5)
    check_experts(one_file(tmp_path, {name: encoded(a, "F32") for name, a in arrays.items()}), arrays, 6)


@pytest.mark.parametrize("width", [128, 100, 130])
def test_fused_fp8_experts_have_scales_per_half(tmp_path, width):
    entries, meant = {}, {}
    for name, stack in fused(width, 140).items():
        halves = 2 if "gate_up" in name else 1
        parts = [[quantised(half, (128, 128)) for half in np.split(matrix, halves)] for matrix in stack]
        codes = np.stack([np.concatenate([codes for codes, _, _ in matrix]) for matrix in parts])
        scales = np.stack([np.concatenate([scales for _, scales, _ in matrix]) for matrix in parts])
        meant[name] = np.stack([np.concatenate([values for _, _, values in matrix]) for matrix in parts])
        entries[name] = ("F8_E4M3", codes.shape, codes.tobytes())
        entries[f"{name}_scale_inv"] = encoded(scales, "F32")
    check_experts(one_file(tmp_path, entries), meant, width)


def test_cached_tensors_stay_within_their_budget(tmp_path):
    arrays = random_tensors({name: (100,) for name in "abcd"})
    write_raw(tmp_path / "model.safetensors", {name: encoded(a, "F32") for name, a in arrays.items()})
    folder = CheckpointFolder(tmp_path, cache_bytes=1000)  # two of 400 bytes
    a, b = folder.cached("a"), folder.cached("b")
    assert folder.cached("a") is a and not a.flags.writeable
    folder.cached("c")  # drops b, which was used least recently
    assert folder.cached("a") is a and folder.cached("b") is not b
    assert CheckpointFolder(tmp_path, cache_bytes=10).cached("a").tolist() == arrays["a"].tolist(), "larger than the cache"


def test_equal_compares_numbers_across_types(tmp_path):
    values = np.random.default_rng(0).integers(-8, 8, (3000, 100)).astype(np.float32)  # more than one piece
    other = values.copy()
    other[-1, -1] += 1
    tensors = {"f32": encoded(values, "F32"), "bf16": encoded(values, "BF16"), "same": encoded(values, "F32")}
    more = {"other": encoded(other, "F32"), "short": encoded(values[1:], "F32")}
    folder = one_file(tmp_path, tensors | more)
    assert folder.equal("f32", "same") and folder.equal("f32", "bf16")
    assert not any(folder.equal(a, b) for a, b in (("f32", "other"), ("bf16", "other"), ("f32", "short"), ("short", "f32")))


# Refusals.


def refused(path: Path, words: str, **options):
    with pytest.raises(MinidsError) as caught:
        CheckpointFolder(path, **options)
    assert words in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600 + 3 * len(str(path))


A, B = encoded(np.ones(3), "F32"), encoded(np.ones((2, 2)), "F32")


def with_index(path: Path, weight_map: object):
    (path / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_folders_without_weights_say_what_they_have(tmp_path):
    refused(tmp_path / "nothing", "not a folder")
    refused(tmp_path, "neither model.safetensors nor")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    refused(tmp_path, "pickle")
    write_raw(tmp_path / "model-00001-of-00002.safetensors", {"a": A})
    refused(tmp_path, "index.json is missing")


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "..\\x.safetensors",
                                  "C:x.safetensors", "x\0.safetensors", "../../x.safetensors", "x\n.safetensors"])  # fmt: skip
def test_an_index_cannot_point_elsewhere(tmp_path, name):
    inner = tmp_path / "model"
    (inner / "sub").mkdir(parents=True)
    for target in (tmp_path, inner / "sub"):
        write_raw(target / "x.safetensors", {"a": A})
    with_index(inner, {"a": name})
    refused(inner, "refused")


def test_links_may_stay_in_the_folder_but_not_leave_it(tmp_path):
    outside, inner = tmp_path / "outside.safetensors", tmp_path / "model"
    inner.mkdir()
    write_raw(outside, {"a": A})
    (inner / "model.safetensors").symlink_to(outside)
    refused(inner, "leaves the folder")
    (inner / "model.safetensors").unlink()
    write_raw(inner / "real", {"a": A})
    (inner / "model.safetensors").symlink_to("real")
    assert CheckpointFolder(inner).names() == ("a",)
    (inner / "config.json").symlink_to(outside)
    refused(inner, "leaves the folder")


def test_the_hubs_cache_of_links_opens(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    write_raw(blobs / "f00d", {"a": A})
    (snapshot / "model.safetensors").symlink_to("../../blobs/f00d")
    assert CheckpointFolder(snapshot).names() == ("a",)


INDEXES = {
    "no json": ("{", "not valid JSON"),
    "no map": ("{}", "must have a weight_map"),
    "empty map": ('{"weight_map": {}}', "must have a weight_map"),
    "map of numbers": ('{"weight_map": {"a": 1}}', "no safetensors file"),
    "a pickle": ('{"weight_map": {"a": "x.bin"}}', "no safetensors file"),
    "bomb": ('{"weight_map": ' + '{"a":' * 50_000, "nested too deeply"),
    "twice": ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "given twice"),
    "missing shard": ('{"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}', "shard y.safetensors is missing"),
    "absent tensor": (
        '{"weight_map": {"a": "x.safetensors", "zz": "x.safetensors"}}',
        "tensor 'zz' only in the index or only in the file",
    ),
    "surplus tensor": ('{"weight_map": {"c": "x.safetensors"}}', "2 tensors 'a', 'c' only in"),
}


@pytest.mark.parametrize("case", INDEXES)
def test_a_bad_index_is_refused(tmp_path, case):
    text, words = INDEXES[case]
    write_raw(tmp_path / "x.safetensors", {"a": A})
    (tmp_path / INDEX).write_text(text)
    refused(tmp_path, words)


def test_tensors_that_the_index_does_not_name_are_refused(tmp_path):
    write_raw(tmp_path / "x.safetensors", {name: A for name in "abcdef"})
    with_index(tmp_path, {"a": "x.safetensors"})
    refused(tmp_path, "5 tensors 'b', 'c', 'd' and 2 more only in the index or only in the file")


def test_two_models_in_one_folder_are_refused(tmp_path):
    write_raw(tmp_path / "model.safetensors", {"a": A})
    write_sharded(tmp_path, {"x.safetensors": {"a": A}})
    refused(tmp_path, "holds two models")


SCALES = {
    "none": ({"w": encoded(np.ones((2, 2)), "F8_E4M3")}, "F8_E4M3 [2, 2]: has scales none, needs float [1, 1]"),
    "for a matrix that is not FP8": (
        {"w": B, "w_scale_inv": encoded(np.ones((1, 1)), "F32")},
        "has scales float [1, 1], needs none",
    ),
    "without a matrix": ({"a": A, "w_scale_inv": encoded(np.ones((1, 1)), "F32")}, "scale 'w_scale_inv' without the matrix"),
    "of the wrong shape": ({"w": encoded(np.ones((129, 2)), "F8_E4M3"), "w_scale_inv": B}, "needs float [2, 1]"),
    "of the wrong type": (
        {"w": encoded(np.ones((2, 2)), "F8_E4M3"), "w_scale_inv": encoded(np.ones((1, 1)), "I32")},
        "has scales I32 [1, 1], needs float [1, 1]",
    ),
    "of a vector": ({"w": encoded(np.ones(2), "F8_E4M3"), "w_scale_inv": B}, "needs to be a matrix"),
}


@pytest.mark.parametrize("case", SCALES)
def test_a_wrong_scale_is_refused(tmp_path, case):
    tensors, words = SCALES[case]
    write_raw(tmp_path / "model.safetensors", tensors)
    refused(tmp_path, words)


FUSED = {
    "flat": ({"gate_up_proj": encoded(np.ones((4, 2)), "F32")}, "has shape [4, 2]"),
    "odd": ({"gate_up_proj": encoded(np.ones((1, 3, 2)), "F32")}, "has shape [1, 3, 2]"),
    "endless and empty": ({"down_proj": ("F32", (1 << 40, 0, 2), b"")}, "has shape"),
    "twice": ({"gate_up_proj": encoded(np.ones((1, 2, 2)), "F32"), "0.up_proj.weight": B}, "there twice"),
    "scales for fewer experts": (
        {"down_proj": encoded(np.ones((2, 2, 2)), "F8_E4M3"), "down_proj_scale_inv": encoded(np.ones((1, 1, 1)), "F32")},
        "for 1 experts of 2",
    ),
}


@pytest.mark.parametrize("case", FUSED)
def test_wrongly_fused_experts_are_refused(tmp_path, case):
    tensors, words = FUSED[case]
    write_raw(tmp_path / "model.safetensors", {f"{EXPERTS}.{name}": entry for name, entry in tensors.items()})
    refused(tmp_path, words)


def test_integers_are_no_weights(tmp_path):
    folder = one_file(tmp_path, {"n": encoded(np.arange(3), "I64")})
    with pytest.raises(MinidsError, match="of type I64"):
        folder.tensor("n")


def test_a_folder_with_some_shards_opens_when_asked_for(tmp_path):
    entries, _ = fp8_entries("far.weight", np.ones((2, 2), np.float32), (128, 128))
    write_sharded(tmp_path, {"1.safetensors": {"a": A, "far.weight": entries["far.weight"]},
                             "2.safetensors": {"b": B, "far.weight_scale_inv": entries["far.weight_scale_inv"]},
                             "3.safetensors": {"c": A}})  # fmt: skip
    (tmp_path / "2.safetensors").unlink()
    refused(tmp_path, "shard 2.safetensors is missing")
    folder = CheckpointFolder(tmp_path, partial=True)
    assert folder.names() == ("a", "c")
    for name in ("b", "far.weight"):
        with pytest.raises(MinidsError, match=r"lies in 2\.safetensors, which is missing"):
            folder.tensor(name)
    for shard in ("1", "3"):
        (tmp_path / f"{shard}.safetensors").unlink()
    refused(tmp_path, "none of its 3 shards", partial=True)


def test_damage_to_any_file_of_a_folder_is_refused_or_read_but_never_crashes(tmp_path):
    rng = np.random.default_rng(3)
    entries, _ = fp8_entries("w.weight", random_tensors({"w": (10, 9)})["w"], (4, 4))
    experts = {f"{EXPERTS}.down_proj": encoded(np.ones((2, 2, 2)), "BF16")}
    write_sharded(tmp_path, {"x.safetensors": {"a": A, **entries}, "y.safetensors": experts})
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [4, 4]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    refusals = 0
    for file in sorted(tmp_path.iterdir()):
        whole = file.read_bytes()
        for case in range(80):
            changed, position = bytearray(whole), int(rng.integers(0, len(whole)))
            if case % 4 == 0:
                changed = changed[:position]
            else:
                changed[position] ^= int(rng.integers(1, 256))
            file.write_bytes(changed)
            try:
                folder = CheckpointFolder(tmp_path)
                for name in folder.names():
                    folder.tensor(name)
            except MinidsError as error:
                refusals += 1
                assert "\n" not in str(error)
        file.write_bytes(whole)
    assert refusals > 200, "most damage must be noticed: only numbers themselves can change unseen"
    assert CheckpointFolder(tmp_path).shape("w.weight") == (10, 9), "the restored folder opens again"


# Writing.


def test_one_shard_is_model_safetensors_without_an_index(tmp_path):
    arrays = random_tensors({"a": (3,), "gate.e_score_correction_bias": (4,)})
    write_folder(tmp_path / "new" / "run", {"model_type": "x"}, {"any.safetensors": arrays}, floats="BF16")
    assert sorted(os.listdir(tmp_path / "new" / "run")) == ["config.json", "model.safetensors"]
    folder = CheckpointFolder(tmp_path / "new" / "run")
    assert (folder.dtype("a"), folder.dtype("gate.e_score_correction_bias")) == ("BF16", "F32")
    np.testing.assert_array_equal(folder.tensor("gate.e_score_correction_bias"), arrays["gate.e_score_correction_bias"])
    assert read_config_json(folder.path) == {"model_type": "x"}


def test_several_shards_have_an_index_with_the_total_size(tmp_path):
    arrays = random_tensors({"a": (3,), "b": (4,)})
    write_folder(tmp_path, {}, {"1.safetensors": {"a": arrays["a"]}, "2.safetensors": {"b": arrays["b"]}})
    index = json.loads((tmp_path / INDEX).read_text())
    assert index == {"metadata": {"total_size": 28}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    for name, array in arrays.items():
        np.testing.assert_array_equal(CheckpointFolder(tmp_path).tensor(name), array)


def test_a_new_checkpoint_removes_the_old_ones_files_and_no_others(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    write_raw(tmp_path / "other.safetensors", {"z": A})
    write_folder(tmp_path, {}, {"1.safetensors": {"a": np.ones(3)}, "2.safetensors": {"b": np.ones(3)}})
    write_folder(tmp_path, {}, {"model.safetensors": {"c": np.ones(3)}})
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors", "notes.txt", "other.safetensors"]
    write_folder(tmp_path, {}, {"2.safetensors": {"a": np.ones(3)}, "3.safetensors": {"b": np.ones(3)}})
    assert CheckpointFolder(tmp_path).names() == ("a", "b")
    assert "model.safetensors" not in os.listdir(tmp_path)


def test_an_old_index_cannot_name_other_files_for_removal(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path.parent / "victim.safetensors").write_text("not yours")
    with_index(tmp_path, {"a": "notes.txt", "b": "../victim.safetensors"})
    write_folder(tmp_path, {}, {"model.safetensors": {"c": np.ones(3)}})
    assert (tmp_path / "notes.txt").exists() and (tmp_path.parent / "victim.safetensors").exists()


@pytest.mark.parametrize("shards", [{}, {"a.safetensors": {}},
                                    {"../a.safetensors": {"x": np.ones(1)}, "b.safetensors": {"y": np.ones(1)}}])  # fmt: skip
def test_nonsense_is_not_written(tmp_path, shards):
    with pytest.raises(MinidsError):
        write_folder(tmp_path / "new", {}, shards)
    assert list(tmp_path.rglob("*.safetensors")) == []


def opens(path: Path) -> str:
    """Which checkpoint a reader finds in the folder: its tensor's first number, or "refused"."""
    try:
        read_config_json(path)
        folder = CheckpointFolder(path)
        return "+".join(f"{name}={folder.tensor(name)[0]:g}" for name in folder.names())
    except MinidsError:
        return "refused"


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it runs."""


@pytest.mark.parametrize(
    "old", [{"model.safetensors": {"a": 1, "b": 1}}, {"1.safetensors": {"a": 1}, "2.safetensors": {"b": 1}}]
)
@pytest.mark.parametrize(
    "new", [{"model.safetensors": {"a": 2, "b": 2}}, {"1.safetensors": {"a": 2}, "2.safetensors": {"b": 2}}]
)
def test_a_kill_at_any_moment_leaves_the_old_checkpoint_the_new_one_or_none(tmp_path, monkeypatch, old, new):
    def filled(shards):
        return {shard: {name: np.full(3, float(n)) for name, n in tensors.items()} for shard, tensors in shards.items()}

    seen, steps = [], 0
    calls = [(os, "replace"), (os, "fsync"), (Path, "unlink")]
    while True:
        path, left = tmp_path / str(steps), steps
        write_folder(path, {}, filled(old))
        with monkeypatch.context() as patch:

            def counted(original):
                def call(*args, **options):
                    nonlocal left
                    if left == 0:
                        raise Killed
                    left -= 1
                    return original(*args, **options)

                return call

            for owner, name in calls:
                patch.setattr(owner, name, counted(getattr(owner, name)))
            patch.setattr("minids.files.Staged.discard", lambda self: None)  # a kill cleans nothing up
            try:
                write_folder(path, {}, filled(new))
                break
            except Killed:
                seen.append(opens(path))
        steps += 1
    assert set(seen) <= {"a=1+b=1", "a=2+b=2", "refused"}, seen
    assert seen[0] == "a=1+b=1" and "refused" in seen and opens(path) == "a=2+b=2"
    first_refused = seen.index("refused")
    assert set(seen[:first_refused]) == {"a=1+b=1"}, "the old checkpoint must last until the new one is on the disk"
    write_folder(tmp_path / "0", {}, filled(new))
    assert opens(tmp_path / "0") == "a=2+b=2", "what a kill left behind must not hinder the next save"
    assert not list((tmp_path / "0").glob(".*")), "the next save must clear what a kill left behind"
