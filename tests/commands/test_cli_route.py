"""minids route as a user meets it."""

import pytest

from minids import DeepSeekV3, ModelConfig, save
from minids.checkpoint.tokenizer import byte_tokenizer
from minids.cli import main


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder with a small untrained model, and two texts."""
    folder = tmp_path_factory.mktemp("route")
    config = ModelConfig.preset(
        "tiny", hidden_size=16, num_hidden_layers=3, moe_intermediate_size=8, max_position_embeddings=64
    )
    model = DeepSeekV3(config)
    model.tokenizer = byte_tokenizer()
    save(model, folder / "model")
    dense = DeepSeekV3(config.replace(first_k_dense_replace=3))
    dense.tokenizer = model.tokenizer
    save(dense, folder / "dense")
    (folder / "words.txt").write_text("the cat sat on the mat.\n" * 200)
    (folder / "sums.txt").write_text("12 + 30 = 42\n" * 200)
    return folder


def said(capsys, *arguments):
    code = main(["route", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_text_is_shown_and_drawn(places, tmp_path, capsys):
    page, picture = tmp_path / "text.html", tmp_path / "text.png"
    code, out, _ = said(
        capsys, "--checkpoint", places / "model", "--text", "one\ntwo", "--layer", 1, "--html", page, "--png", picture
    )
    assert code == 0
    assert "model.layers.1.mlp: each token" in out and "node 3" in out and "Dropped tokens: 0" in out
    assert "\x1b" not in out, "the output is no terminal"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>") and picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("gpus", "line"), [(3, "gpus = 3: must divide 16 experts"), (-1, "gpus = -1: must be at least 1")])
def test_gpus_that_cannot_share_the_experts_are_refused(gpus, line, places, capsys):
    data = ("--data", places / "words.txt", "--tokens", 64)
    code, _, err = said(capsys, "--checkpoint", places / "model", *data, "--gpus", gpus)
    assert code == 2 and line in err and err.count("\n") == 1
    code, _, err = said(capsys, "--checkpoint", places / "model", "--text", "one", "--gpus", 4)
    assert code == 2 and "gpus = 4: is about the load that --data measures" in err


def test_domains_are_measured_and_weights_may_stay_on_disk(places, capsys):
    given = ("--checkpoint", places / "model", "--data", places / "words.txt", places / "sums.txt", "--tokens", 400)
    code, out, _ = said(capsys, *given, "--gpus", 4)
    assert code == 0 and "4 GPUs: load of the busiest" in out and "copies of it" in out
    for part in (
        "words, sums",
        "bits of domain",
        "Busiest experts",
        "sequences shuffled",
        "nodes used",
        "(trained with 2)",
    ):
        assert part in out, f"{part!r} is not in what minids route prints"
    assert said(capsys, *given, "--stream")[1].splitlines()[:6] == out.splitlines()[:6]


BAD = {
    "nothing to read": ([], "give --text TEXT to show it, or --data"),
    "a page without a text": (["--data", "builtin", "--html", "x.html"], "html = 'x.html': is a picture of --text"),
    "a folder that is not there": (["--text", "x", "--png", "no/x.png"], "png = 'no/x.png': its folder is not there"),
    "a block without experts": (["--text", "x", "--layer", "0"], "layer = 0: is no block with experts; there are 1, 2"),
    "more than the model reads": (["--text", "x" * 64], "has 65 tokens; this model reads at most 64"),
    "no tokens": (["--data", "builtin", "--tokens", "0"], "tokens = 0"),
    "less than a sequence": (["--data", "builtin", "--tokens", "20"], "tokens = 20: one sequence has 64 tokens"),
    "a folder for a page": (["--text", "x", "--html", "."], "html = '.': is a folder; name a file in it"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_line(case, places, capsys):
    arguments, message = BAD[case]
    arguments = [str(places / "sums.txt") if a == "SUMS" else a for a in arguments]
    code, _, err = said(capsys, "--checkpoint", places / "model", *arguments)
    assert code == 2 and err.count("\n") == 1 and message in err


def test_a_model_without_experts_has_nothing_to_show(places, capsys):
    code, _, err = said(capsys, "--checkpoint", places / "dense", "--text", "x")
    assert code == 2 and "has no experts" in err
