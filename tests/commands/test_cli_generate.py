"""minids generate and train, at the edges: where prompts come from, where texts end, what is said of what was left out."""

import io
import json
import shlex
import sys

import pytest

import minids
from minids.cli import main
from minids.errors import MinidsError
from minids.training.text import readable_prompt

SMALL = dict(steps=2, batch_size=2, context_length=16, eval_every=2, eval_tokens=64, sample_every=0, num_hidden_layers=2)
SMALL |= dict(hidden_size=16, moe_intermediate_size=8)
CHINESE = "道可道，非常道。名可名，非常名。\n\n無名天地之始；有名萬物之母。\n\n" * 60


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("generate")
    (root / "rhyme.txt").write_text("one, two, three, four, five; once I caught a fish alive.\n\n" * 40)
    minids.train(root / "run", root / "rhyme.txt", tokenizer="chars", say=lambda line: None, **SMALL)
    return str(root / "run")


def said(capsys, *arguments):
    code = main([*arguments])
    return code, *capsys.readouterr()


def generate(capsys, run, *arguments):
    return said(capsys, "generate", "--checkpoint", run, "--max-new-tokens", "12", *arguments)


def test_a_prompt_from_a_file_and_from_standard_input(run, capsys, tmp_path, monkeypatch):
    (tmp_path / "prompt.txt").write_bytes("\ufeffone, two".encode() + b"\r\n")
    expected = generate(capsys, run, "--prompt", "one, two")
    assert expected[0] == 0 and expected[1].startswith("one, two")
    assert generate(capsys, run, "--prompt-file", str(tmp_path / "prompt.txt")) == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one, two\n")))
    assert generate(capsys, run, "--prompt-file", "-") == expected
    (tmp_path / "prompt.txt").write_text("one\n\n")
    assert generate(capsys, run, "--prompt-file", str(tmp_path / "prompt.txt"))[1].startswith("one\n")
    both = generate(capsys, run, "--prompt", "a", "--prompt-file", str(tmp_path / "prompt.txt"))[1]
    assert "--- 'a'\n" in both and "--- 'one\\n'\n" in both


def test_several_samples_have_seeds_one_after_the_other(run, capsys):
    hot = ("--temperature", "1.2")
    alone = [generate(capsys, run, "--prompt", "one", "--seed", str(seed), *hot)[1] for seed in (5, 6, 7)]
    together = generate(capsys, run, "--prompt", "one", "--seed", "5", "--num-samples", "3", *hot)[1]
    assert together == "".join(f"--- 'one'\n{text}\n" for text in alone)


@pytest.mark.parametrize("ending", ["e", ",", "w"])
def test_a_text_that_ends_it(run, capsys, ending):
    hot = ("--temperature", "1.5", "--max-new-tokens", "200", "--prompt", "one")
    whole = said(capsys, "generate", "--checkpoint", run, *hot)[1].removeprefix("one")
    ended = said(capsys, "generate", "--checkpoint", run, *hot, "--stop", ending)[1].removeprefix("one")
    assert ended == whole[: whole.index(ending) + 1] + "\n"


def test_a_penalty_changes_the_text(run, capsys):
    greedy = ("--prompt", "one", "--temperature", "0", "--max-new-tokens", "40")
    plain, penalised = (generate(capsys, run, *greedy, *more)[1] for more in ([], ["--repetition-penalty", "1.8"]))
    assert plain != penalised


def test_what_is_left_out_of_a_prompt_is_said_and_not_shown(run, capsys):
    code, out, err = generate(capsys, run, "--prompt", "onéX, two")
    assert code == 0 and out.startswith("on, two")
    assert err == "minids: prompt: left out, because the model's vocabulary does not have it: 'é', 'X'\n"
    assert generate(capsys, run, "--prompt", "ÉX")[::2] == (
        2,
        "minids: prompt = 'ÉX': none of its characters is in the model's vocabulary ('É', 'X')\n",
    )
    code, out, err = said(capsys, "route", "--checkpoint", run, "--text", "onéX")
    assert code == 0 and "'é', 'X'" in err
    assert said(capsys, "route", "--checkpoint", run, "--text", "É")[0] == 2


def test_a_folder_says_how_it_is_drawn_and_what_is_typed_counts_before_it(run, capsys, tmp_path):
    minids.save(minids.load(run), tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"do_sample": False}))
    folder = str(tmp_path / "model")
    assert generate(capsys, folder, "--prompt", "one") == generate(capsys, run, "--prompt", "one", "--temperature", "0")
    hot = ("--prompt", "one", "--temperature", "1.5", "--top-p", "1")
    assert generate(capsys, folder, *hot) == generate(capsys, run, *hot)


def test_a_folder_whose_mtp_module_is_there_in_part_opens_without_it(run, capsys, tmp_path):
    """As the message says."""
    from minids.checkpoint.tensor_file import TensorFile, write_tensor_file

    minids.save(minids.load(run), tmp_path / "model")
    file = TensorFile(tmp_path / "model" / "mtp.safetensors")
    write_tensor_file(tmp_path / "model" / "mtp.safetensors", {n: file.read(n) for n in file.names() if "enorm" not in n})
    index = tmp_path / "model" / "model.safetensors.index.json"
    kept = json.loads(index.read_text())
    kept["weight_map"] = {n: shard for n, shard in kept["weight_map"].items() if "enorm" not in n}
    index.write_text(json.dumps(kept))
    code, _, err = generate(capsys, str(tmp_path / "model"), "--prompt", "one")
    assert code == 2 and "mtp=False, or --no-mtp, opens the folder without it" in err
    expected = generate(capsys, run, "--prompt", "one")
    assert generate(capsys, str(tmp_path / "model"), "--prompt", "one", "--no-mtp")[:2] == expected[:2]
    minids.load(tmp_path / "model", mtp=False)
    assert said(capsys, "route", "--checkpoint", str(tmp_path / "model"), "--text", "one")[0] == 0


@pytest.mark.parametrize("text", [CHINESE, "xyz " * 800, "\n".join('zq$`"!' * 3 for _ in range(300))])
def test_advice_at_the_end_can_be_followed(tmp_path, capsys, text):
    """It uses a prompt that this model can read."""
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    settings = [
        f"--{'model.' * (n in ('num_hidden_layers', 'hidden_size', 'moe_intermediate_size'))}{n.replace('_', '-')}={v}"
        for n, v in SMALL.items()
    ]
    run = str(tmp_path / "run")
    code, out, _ = said(capsys, "train", "--data", str(tmp_path / "text.txt"), "--tokenizer", "chars", "--out", run, *settings)
    assert code == 0
    advice = shlex.split(out.strip().splitlines()[-1].removeprefix("Write more: "))
    assert advice[:2] == ["minids", "generate"]
    code, out, err = said(capsys, *advice[1:], "--max-new-tokens", "2")
    assert (code, err) == (0, "") or (len(advice) == 4 and "no token that starts a document" in err)
    assert len(advice) < 5 or (out.startswith(advice[5]) and len(advice[5]) > 1)


def test_a_prompt_for_a_shell_has_nothing_that_a_shell_reads():
    tokenizer = minids.Tokenizer.load  # the class is there, whatever makes one
    assert callable(tokenizer)
    from minids.checkpoint.tokenizer import byte_tokenizer, character_tokenizer

    assert readable_prompt(byte_tokenizer(), []) == "def "
    assert readable_prompt(character_tokenizer(["The cat"]), []) == "The "
    only = character_tokenizer(['ab$"'])
    assert readable_prompt(only, ['$"a', 'ab$"']) == "ab" and readable_prompt(only, ['$"']) == ""


# minids.train


def test_train_from_python_is_the_command(tmp_path, run):
    (tmp_path / "rhyme.txt").write_text("one, two, three, four, five; once I caught a fish alive.\n\n" * 40)
    lines = []
    model = minids.train(tmp_path / "run", [tmp_path / "rhyme.txt"], tokenizer="chars", say=lines.append, **SMALL)
    other = minids.load(run)
    assert model.config == other.config and any("validation" in line for line in lines)
    assert (model.parameters.values == other.parameters.values).all()
    again = minids.train(tmp_path / "run", resume=True, say=lines.append)
    assert (again.parameters.values == model.parameters.values).all()
    assert model.tokenizer.decode(minids.generate(model, "one", 3))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(lr=1e-3), "lr = 0.001: no such setting; perhaps you meant learning_rate?"),
        (dict(n_layer=4), "perhaps you meant num_hidden_layers?"),
        (dict(stepz=4), "did you mean steps?"),
        (dict(preset="deepseek-v3"), "preset = 'deepseek-v3': must be one of tiny"),
        (dict(data=3), "data = 3"),
        (dict(data=[]), r"data = \[\]"),
        (dict(out=3), "out = 3"),
        (dict(resume="yes"), "resume = 'yes'"),
        (dict(say="loud"), "say = 'loud'"),
        (dict(steps="5"), "steps = '5'"),
    ],
)
def test_what_train_cannot_do_is_said(tmp_path, given, words):
    with pytest.raises(MinidsError, match=words):
        minids.train(**{"out": tmp_path / "new", "say": print, **given})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("owner", [minids.ModelConfig, minids.TrainConfig])
def test_configurations_know_other_names_too(owner):
    name, ours = ("n_embd", "hidden_size") if owner is minids.ModelConfig else ("max_iters", "steps")
    with pytest.raises(MinidsError, match=f"perhaps you meant {ours}"):
        owner.preset("tiny", **{name: 3})


def test_every_name_of_ours_among_the_other_names_exists():
    import dataclasses

    from minids.cli import COMMANDS
    from minids.commands.options import options_of
    from minids.other_names import SETTINGS

    fields = {o.field for module in COMMANDS.values() for o in options_of(module.Options)}
    fields |= {f.name for kind in (minids.ModelConfig, minids.TrainConfig) for f in dataclasses.fields(kind)}
    assert set(SETTINGS) <= fields
    for ours, theirs in SETTINGS.items():
        assert ours not in theirs
