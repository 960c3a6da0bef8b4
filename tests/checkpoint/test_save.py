"""``minids.save`` and ``minids.load``: what was saved comes back, whatever the folder held before."""

import os
import shutil
import stat

import numpy as np
import pytest
import small_run
from small_run import quiet, write_text
from support import TINY, build

import minids
from minids.checkpoint.config_json import read_config_json
from minids.checkpoint.extension import run_setting
from minids.checkpoint.folder import CheckpointFolder
from minids.checkpoint.tokenizer import byte_tokenizer
from minids.errors import MinidsError
from minids.training.run import Run


def same(a, b):
    return np.array_equal(a.parameters.values, b.parameters.values)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run = small_run.RUN.replace(steps=2, save_every=2)
    Run.start(folder / "run", small_run.MODEL, run, write_text(folder), "tiny", quiet).run()
    return folder / "run"


def test_a_folder_of_a_run_is_refused_and_left_as_it_was(run):
    before = minids.load(run)
    for folder in (run, run / "step-000002"):
        with pytest.raises(MinidsError, match="belongs to a training run"):
            minids.save(build(TINY), folder)
    assert same(minids.load(run), before)


def test_a_model_without_a_tokenizer_takes_the_old_one_away(tmp_path):
    with_one = build(TINY.replace(vocab_size=258))
    with_one.tokenizer = byte_tokenizer()
    minids.save(with_one, tmp_path)
    assert minids.load(tmp_path).tokenizer is not None
    minids.save(build(TINY), tmp_path)
    again = minids.load(tmp_path)
    assert again.tokenizer is None and same(again, build(TINY, dtype=np.float32))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "mtp.safetensors",
    ]


def test_an_old_list_of_checksums_goes_with_what_it_listed(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run / "step-000002", copy)
    (copy / "training_state.json").unlink()
    minids.save(build(TINY), copy)
    assert same(minids.load(copy), build(TINY, dtype=np.float32))


def test_a_full_disk_leaves_the_old_model_with_its_own_tokenizer(tmp_path, monkeypatch):
    old, new = build(TINY.replace(vocab_size=258)), build(TINY)
    old.tokenizer = byte_tokenizer()
    minids.save(old, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for fails_at in range(5):
        count = iter(range(100))

        def fsync(handle, count=count, fails_at=fails_at):
            if stat.S_ISREG(os.fstat(handle).st_mode) and next(count) == fails_at:
                raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("minids.files.os.fsync", fsync)
            try:
                minids.save(new, tmp_path)
                break
            except MinidsError as error:
                assert "No space left" in str(error)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before, f"at file {fails_at}"
    assert fails_at >= 3


def test_a_tokenizer_that_waits_for_its_model_stays(tmp_path):
    byte_tokenizer().save(tmp_path)
    minids.save(build(TINY.replace(vocab_size=258)), tmp_path)
    assert minids.load(tmp_path).tokenizer is not None


def test_files_that_nobody_reads_may_lie_beside_those_that_are_listed(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run / "step-000002", copy)
    for name in ("special_tokens_map.json", "._config.json", "notes.txt"):
        (copy / name).write_text("{}")
    minids.load(copy)


def test_a_run_json_of_somebody_else_says_nothing_of_ours(tmp_path):
    (tmp_path / "run.json").write_text('{"name": "other"}')
    minids.save(build(TINY), tmp_path / "model")
    assert run_setting(tmp_path / "model", "validation_share", 0.1) == 0.1
    assert minids.load(tmp_path / "model", extend=2).config.rope_scaling is not None


def test_a_file_that_no_checksum_covers_is_refused(run, tmp_path):
    """Or a line taken out of the list would take its file's protection away."""
    copy = tmp_path / "copy"
    shutil.copytree(run / "step-000002", copy)
    (copy / "extra.safetensors").write_bytes(b"x")
    with pytest.raises(MinidsError, match=r"not listed in checksums.json"):
        minids.load(copy)


def test_a_folder_in_fp8_is_that_of_the_release(tmp_path):
    model = build(TINY, dtype=np.float32)
    minids.save(model, tmp_path, "fp8")
    folder = CheckpointFolder(tmp_path)
    kinds = {name: folder.dtype(name) for name in folder.names()}
    assert kinds["model.layers.0.self_attn.o_proj.weight"] == kinds["model.layers.1.mlp.experts.0.up_proj.weight"] == "F8_E4M3"
    assert kinds["model.embed_tokens.weight"] == kinds["model.layers.1.mlp.gate.weight"] == kinds["lm_head.weight"] == "BF16"
    assert kinds["model.norm.weight"] == kinds["model.layers.1.mlp.gate.e_score_correction_bias"] == "F32"
    assert read_config_json(tmp_path)["quantization_config"]["weight_block_size"] == [128, 128]
    again = minids.load(tmp_path)
    for before, after in zip(model.parameters, again.parameters, strict=True):
        tolerance = {"F8_E4M3": 2**-4, "BF16": 2**-8}.get(kinds.get(before.name, "F8_E4M3"), 0)
        assert np.abs(before.value - after.value).max() <= tolerance * np.abs(before.value).max(), before.name
    minids.save(again, tmp_path / "twice", "fp8")
    assert same(minids.load(tmp_path / "twice"), again), "what was rounded once stays as it is"


def test_another_way_to_keep_weights_is_refused(tmp_path):
    with pytest.raises(MinidsError, match="weights = 'int4': must be one of float32, fp8"):
        minids.save(build(TINY), tmp_path / "new", "int4")
    assert not (tmp_path / "new").exists()
