"""The command line as a user meets it: what it prints, and one clear line with exit code 2 for everything it cannot do."""

import importlib.util
import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minids
from minids.cli import COMMANDS, main
from minids.commands.evaluate import in_words
from minids.commands.options import built, options_of, typed
from minids.config import ModelConfig
from minids.training.evaluate import evaluate

SMALL = shlex.split(
    "--steps 3 --batch-size 2 --context-length 16 --log-every 1 --eval-every 3 --eval-tokens 64 --sample-every 0 "
    "--model.num-hidden-layers 2 --model.hidden-size 16 --model.moe-intermediate-size 8"
)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "rhyme.txt"
    path.write_text("one, two, three, four, five; once I caught a fish alive.\n\n" * 40)
    return str(path)


def said(capsys, *arguments):
    """Run a command in this process: exit code, standard output, standard error."""
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def test_train_resume_and_generate(tmp_path, text, capsys):
    run = str(tmp_path / "run")
    code, out, _ = said(capsys, "train", "--data", text, "--out", run, *SMALL)
    assert code == 0
    for part in ("samples before training", "samples after training", "bits per byte: rhyme", "loss.png", "MaxVio", "tokens/s"):
        assert part in out, f"{part!r} is not in what minids train prints"
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert said(capsys, "train", "--out", run, "--resume")[0] == 0
    code, out, _ = said(capsys, "generate", "--checkpoint", run, "--prompt", "one, ", "--max-new-tokens", "8", "--seed", "1")
    assert code == 0 and out.startswith("one, ")
    greedy = [
        said(capsys, "generate", "--checkpoint", run, "--prompt", "one", "--temperature", "0", "--cache", cache)[1]
        for cache in ("latent", "full", "none")
    ]
    assert greedy[0] == greedy[1] == greedy[2]
    longer = ("--extend", "4", "--max-new-tokens", "8", "--temperature", "0")
    assert said(capsys, "generate", "--checkpoint", run, "--prompt", "one", *longer)[0] == 0
    short = ("generate", "--checkpoint", run, "--prompt", "one", "--temperature", "0", "--max-new-tokens", "20")
    code, out, _ = said(capsys, *short, "--speculative", "--draft-tokens", "2", "--log-probabilities")
    assert code == 0 and out.startswith(said(capsys, *short)[1]), "with guesses it is another text"
    for part in ("log p (nats)", "tokens a pass", "guess 1: "):
        assert part in out, f"{part!r} is not in what minids generate --speculative prints"


def test_several_prompts_are_written_side_by_side(places, capsys):
    run, alone = places[1]["RUN"], []
    settings = ("--checkpoint", run, "--max-new-tokens", "9", "--temperature", "1", "--min-p", "0.02")
    for i, prompt in enumerate(("one", "two, ")):
        code, out, _ = said(capsys, "generate", *settings, "--prompt", prompt, "--seed", str(3 + i))
        assert code == 0 and out.startswith(prompt)
        alone.append(f"--- {prompt!r}\n{out}")
    code, out, _ = said(capsys, "generate", *settings, "--prompt", "one", "--prompt=two, ", "--seed", "3")
    assert code == 0 and out == "\n".join([*alone, ""])


def test_a_middle_is_filled_in_between_prompt_and_suffix(tmp_path, text, capsys):
    run = str(tmp_path / "run")
    assert said(capsys, "train", "--data", text, "--out", run, "--fim-rate", "0.5", *SMALL)[0] == 0
    between = ("--prompt", "one, ", "--suffix", ", three", "--max-new-tokens", "5")
    code, out, _ = said(capsys, "generate", "--checkpoint", run, *between)
    assert code == 0 and out.startswith("one, ") and out.endswith(", three\n")


def test_metrics_are_readable_json(tmp_path, text, capsys):
    said(capsys, "train", "--data", text, "--out", str(tmp_path / "run"), *SMALL)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "main_loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert {"loss", "mtp_loss", "balance_loss", "max_vio", "grad_norm", "learning_rate", "tokens_per_second"} <= set(steps[0])
    assert [line["step"] for line in lines if "validation" in line] == [0, 3]


def test_evaluate_prints_a_table_and_the_same_as_json(places, capsys):
    run = places[1]["RUN"]
    code, out, _ = said(capsys, "evaluate", "--checkpoint", run, "--tokens", "64", "--json")
    found = json.loads(out)
    assert code == 0 and found == evaluate(run, tokens=64)
    assert list(found["bits_per_byte"]) == ["rhyme"] and found["exact_match"] == {}
    code, out, _ = said(capsys, "evaluate", "--checkpoint", run, "--tokens", "64")
    assert code == 0 and f"{found['bits_per_byte']['rhyme']:.3f}" in out
    assert "Not asked: two-digit sums: " in out and "Not asked: line endings of rhyme: " in out


def test_exam_and_line_endings_are_shown_in_percent():
    found = {"bits_per_byte": {"a": 1.5, "b": 2.0}, "top1_accuracy": {"a": 0.5, "b": 0.25}, "top1_unit": "token", "note": ""}
    found |= {"line_endings": {"a": 0.75}, "exact_match": {"one-digit sums": 0.975}, "left_out": {}}
    lines = in_words(found).splitlines()
    assert "next token right" in lines[0]
    assert lines[1].split() == ["a", "1.500", "50.0", "%", "75.0", "%"] and lines[2].split() == ["b", "2.000", "25.0", "%", "–"]
    assert lines[-1].split() == ["one-digit", "sums", "97.5", "%"]


def test_a_run_begins_from_a_checkpoint_with_its_shape(places, tmp_path, capsys):
    out, steps = (
        str(tmp_path / "further"),
        ("--steps", "2", "--batch-size", "2", "--context-length", "16", "--sample-every", "0"),
    )
    given = ("--data", places[1]["TEXT"], "--out", out, "--init-from", places[1]["RUN"], "--learning-rate", "1e-4")
    code, told, _ = said(capsys, "train", *given, *steps, "--model.mtp-loss-weight", "0.1")
    assert code == 0 and f"Training {places[1]['RUN']} further on" in told and f"minids chat --checkpoint {out}" in told
    described = json.loads((tmp_path / "further" / "run.json").read_text())
    assert described["model"]["hidden_size"] == 16 and described["model"]["mtp_loss_weight"] == 0.1
    assert described["init_from"]["asked"] == places[1]["RUN"] and described["train"]["learning_rate"] == 1e-4
    assert said(capsys, "train", "--out", out, "--resume", "--init-from", places[1]["RUN"])[0] == 0


def test_event_files_are_written_on_request_and_go_on_when_resumed(text, tmp_path, capsys):
    pytest.importorskip("tensorboardX")
    out = tmp_path / "run"
    assert said(capsys, "train", "--data", text, "--out", str(out), *SMALL, "--tensorboard")[0] == 0
    (first,) = (out / "tensorboard").iterdir()
    before = first.read_bytes()
    first.unlink()
    assert said(capsys, "train", "--out", str(out), "--resume")[0] == 0
    (again,) = (out / "tensorboard").iterdir()
    assert again.stat().st_size == len(before)


def test_event_files_without_their_library_are_refused_before_the_run(text, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = said(capsys, "train", "--data", text, "--out", str(tmp_path / "run"), "--tensorboard")
    assert code == 2 and 'pip install "minids[tensorboard]"' in err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_the_overview_names_every_command(arguments, capsys):
    code, out, _ = said(capsys, *arguments)
    assert code == 0
    assert all(
        f"  {line}" in out
        for line in (
            "minids train",
            "minids generate",
            "minids chat",
            "minids evaluate",
            "minids info",
            "minids tour",
            "minids data",
        )
    )


def parsed(command, *arguments):
    """The dataclass a command would run with, and what was typed."""
    owner = COMMANDS[command].Options
    options = list(options_of(owner))
    found = typed(command, options, arguments)
    default = COMMANDS[command].defaults(found) if command == "train" else None
    return built(command, owner, options, found, default), set(found)


def test_options_become_the_fields_of_a_dataclass():
    options, given = parsed(
        "train", "--steps=7", "--model.n_group", "2", "--data", "a", "b", "--model.no-seq-aux", "--beta1", "0.5"
    )
    assert (options.train.steps, options.train.beta1, options.data) == (7, 0.5, ("a", "b"))
    assert options.model == ModelConfig.preset("tiny", n_group=2, seq_aux=False)
    assert given == {"steps", "beta1", "data", "model.n_group", "model.seq_aux"}
    assert parsed("train", "--model.q-lora-rank", "None")[0].model.q_lora_rank is None
    assert parsed("train", "--preset", "shakespeare")[0].data == ("shakespeare",)
    options, given = parsed("figures", "3", "--theme", "dark", "cost", "--formats", "svg", "pdf")
    assert (options.names, options.theme, options.formats) == (("3", "cost"), "dark", ("svg", "pdf"))
    options, _ = parsed("generate", "--checkpoint", "x", "--temperature", "-1e-3", "--prompt=--x", "--extend", "-inf")
    assert (options.temperature, options.prompt, options.extend) == (-1e-3, ("--x",), -math.inf)


def test_version(capsys):
    assert said(capsys, "--version") == (0, f"minids {minids.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option_in_80_columns(command, capsys):
    code, out, _ = said(capsys, command, "--help")
    assert code == 0 and out.startswith(f"minids {command}") and max(map(len, out.splitlines())) <= 80
    for option in options_of(COMMANDS[command].Options):
        (line,) = [
            line
            for line in out.splitlines()
            if line.startswith(f"  {option.flag}") and line[len(option.flag) + 2 :][:1] in " ,"
        ]
        assert set(option.choices) <= set(re.split(r"[{},\s]", line))


@pytest.mark.parametrize("preset", ["tiny", "deepseek-v3", "moonlight-16b-a3b"])
def test_info_prints_a_table_and_the_same_as_json(preset, capsys):
    code, out, _ = said(capsys, "info", "--preset", preset)
    assert code == 0 and len(out.splitlines()) > 10
    code, out, _ = said(capsys, "info", "--preset", preset, "--json")
    assert code == 0 and json.loads(out)


def test_info_of_a_checkpoint(tmp_path, text, capsys):
    run = str(tmp_path / "run")
    said(capsys, "train", "--data", text, "--out", run, *SMALL)
    assert said(capsys, "info", "--checkpoint", run)[0] == 0


def test_data_lists_the_domains(capsys):
    code, out, _ = said(capsys, "data", "list")
    assert code == 0
    assert all(name in out for name in ("prose", "code", "arithmetic", "shakespeare"))


BAD = {
    "unknown command": (["trian"], "did you mean train"),
    "unknown preset": (["train", "--preset", "tinny"], "preset = 'tinny': no training run of that name; did you mean tiny?"),
    "a preset no laptop holds": (["train", "--preset", "deepseek-v3"], "too large to train here"),
    "unknown option": (["train", "--stpes", "3"], "train: there is no option --stpes; did you mean --steps? "),
    "not a number": (["train", "--steps", "many"], "minids: steps = 'many': must be a whole number\n"),
    "half a step": (["train", "--steps", "1.5"], "steps = '1.5': must be a whole number"),
    "a quotation mark for a number": (["train", "--steps", "it's"], """steps = "it's": must be a whole number"""),
    "a rate in words": (["train", "--learning-rate", "fast"], "learning_rate = 'fast': must be a number"),
    "half a tile": (["train", "--model.fp8-tile", "64.5"], "model.fp8_tile = '64.5': must be a whole number"),
    "a study into a file": (["study", "fp8", "--quick", "--out", "TEXT"], "rhyme.txt': cannot be written to (File exists)"),
    "a study below a file": (["study", "fp8", "--quick", "--out", "TEXT/runs"], "cannot be written to (Not a directory)"),
    "figures into a file": (["figures", "3", "--out", "TEXT"], "cannot be written to (File exists); choose another folder"),
    "a seed in words": (["study", "fp8", "--seeds", "1", "x"], "seeds = ['1', 'x']: must be whole numbers"),
    "a switch with a value": (
        ["train", "--model.seq-aux", "false"],
        "model.seq_aux = 'false': is switched without a value, by --model.seq-aux or --model.no-seq-aux",
    ),
    "a switch with a sign of equality": (["study", "fp8", "--show=1"], "show = '1': is switched without a value, by --show or"),
    "a switch whose value would be taken for a name": (
        ["study", "--quick=3", "fp8"],
        "quick = '3': is switched without a value",
    ),
    "a switch both ways": (["train", "--resume", "--no-resume"], "resume = False: is said twice, --resume and --no-resume"),
    "an option without its value": (["generate", "--checkpoint"], "checkpoint: has no value"),
    "a word of no option": (["train", "tiny"], "train: 'tiny' belongs to no option; minids train --help"),
    "a dash": (["study", "-q"], "study: there is no option -q"),
    "bench of nothing": (["bench"], "bench: WHAT is missing: train, kernels, decode"),
    "a switch before an unknown option": (["train", "--resume", "--slowly"], "train: there is no option --slowly"),
    "layers beyond all counting": (["train", "--model.num-hidden-layers", "9" * 30], "must be at most 10,000"),
    "sizes that no memory holds": (["train", "--data", "TEXT", "--model.hidden-size", "9" * 30], "which no memory holds"),
    "steps below one": (["train", "--steps", "0"], "steps = 0: must be at least 1"),
    "experts that do not divide into groups": (
        ["train", "--model.n-group", "3"],
        "n_group = 3: must divide n_routed_experts = 16",
    ),
    "odd RoPE size": (["train", "--model.qk-rope-head-dim", "7"], "qk_rope_head_dim = 7"),
    "top-k above what the kept groups hold": (["train", "--model.num-experts-per-tok", "9"], "hold only 8"),
    "context longer than the data": (["train", "--data", "TEXT", "--context-length", "500", "--batch-size", "2"], "CONTEXT"),
    "context beyond the model's": (["train", "--context-length", "4096"], "max_position_embeddings = 512"),
    "empty file": (["train", "--data", "EMPTY"], "empty"),
    "binary file": (["train", "--data", "BINARY"], "binary"),
    "missing file": (["train", "--data", "MISSING"], "there is no such file"),
    "output below a file": (["train", "--data", "TEXT", "--out", "TEXT/run"], "out = "),
    "an existing run without --resume": (["train", "--data", "TEXT", "--out", "RUN"], "--resume"),
    "a folder of other files": (["train", "--data", "TEXT", "--out", "FOLDER"], "which no run wrote"),
    "nothing to resume": (["train", "--out", "FOLDER", "--resume"], "no run to resume"),
    "a vocabulary that is not the tokenizer's": (["train", "--model.vocab-size", "300"], "follows from the tokenizer"),
    "no such checkpoint": (["generate", "--checkpoint", "MISSING"], "not a folder"),
    "no checkpoint named": (["generate"], "generate: --checkpoint is missing: A run's folder"),
    "negative temperature": (["generate", "--checkpoint", "RUN", "--temperature", "-1"], "temperature = -1"),
    "a seed below zero": (
        ["generate", "--checkpoint", "RUN", "--temperature", "1", "--seed", "-1"],
        "seed = -1: must be a whole number of at least 0",
    ),
    "a batch of too many zeros": (["train", "--batch-size", "1" + "0" * 20], "batch_size = 1" + "0" * 20),
    "unknown cache": (
        ["generate", "--checkpoint", "RUN", "--cache", "paged"],
        "cache = 'paged': must be one of latent, full, none",
    ),
    "draft tokens without speculation": (
        ["generate", "--checkpoint", "RUN", "--draft-tokens", "2"],
        "draft_tokens = 2: concerns",
    ),
    "draft tokens below one": (
        ["generate", "--checkpoint", "RUN", "--speculative", "--draft-tokens", "-1"],
        "draft_tokens = -1",
    ),
    "guesses in several texts": (
        ["generate", "--checkpoint", "RUN", "--prompt", "a", "--prompt", "b", "--speculative"],
        "speculative = True: concerns one text, and there are 2; give one --prompt",
    ),
    "min-p above one": (
        ["generate", "--checkpoint", "RUN", "--min-p", "1.5"],
        "min_p = 1.5: must be a finite number of at least 0 and not above 1",
    ),
    "a suffix for a model that does not fill in": (
        ["generate", "--checkpoint", "RUN", "--prompt", "a", "--suffix", "b"],
        "suffix = 'b': this model was not trained to fill in",
    ),
    "a suffix of several texts": (
        ["generate", "--checkpoint", "RUN", "--prompt", "a", "--prompt", "b", "--suffix", "c"],
        "suffix = 'c': concerns one text",
    ),
    "a share above one": (["train", "--fim-rate", "2"], "fim_rate = 2.0: must lie between 0 and 1"),
    "speculation from disk": (["generate", "--checkpoint", "RUN", "--speculative", "--stream"], "stream = True"),
    "speculation without a cache": (["generate", "--checkpoint", "RUN", "--speculative", "--cache", "none"], "cache = 'none'"),
    "certainty of a guess": (["generate", "--checkpoint", "RUN", "--speculative", "--confidence", "1"], "confidence = 1"),
    "a shorter context": (
        ["generate", "--checkpoint", "RUN", "--extend", "0.5"],
        "extend = 0.5: must be a finite number of at least 1",
    ),
    "an endless context": (
        ["generate", "--checkpoint", "RUN", "--extend", "inf"],
        "extend = inf: must be a finite number of at least 1",
    ),
    "a context of no length": (
        ["generate", "--checkpoint", "RUN", "--extend", "nan"],
        "extend = nan: must be a finite number of at least 1",
    ),
    "a trained length without --extend": (
        ["generate", "--checkpoint", "RUN", "--trained-length", "64"],
        "trained_length = 64: is what extend",
    ),
    "settings of other projects": (["train", "--max-iters", "5"], "no option --max-iters; perhaps you meant --steps?"),
    "settings of the model": (["train", "--n-layer=4"], "perhaps you meant --model.num-hidden-layers?"),
    "learning rate as others say it": (["train", "--lr", "1e-3"], "perhaps you meant --learning-rate?"),
    "length as others say it": (["train", "--block_size", "64"], "perhaps you meant --context-length?"),
    "threads as others say it": (["train", "--threads", "2"], "perhaps you meant --workers?"),
    "the model as others say it": (["generate", "--model", "x"], "perhaps you meant --checkpoint?"),
    "the prompt as others say it": (["generate", "--start", "x"], "perhaps you meant --prompt?"),
    "a command of other projects": (["sample"], "sample: no such command; perhaps you meant generate?"),
    "a command that nobody needs": (
        ["convert"],
        "convert: no such command, and no need of one: a checkpoint is a Hugging Face",
    ),
    "no samples": (["generate", "--checkpoint", "RUN", "--num-samples", "0"], "num_samples = 0: must be at least 1"),
    "guesses in several samples": (
        ["generate", "--checkpoint", "RUN", "--num-samples", "2", "--speculative"],
        "concerns one text, and there are 2",
    ),
    "an ending of nothing": (["generate", "--checkpoint", "RUN", "--stop="], "stop = "),
    "a penalty of nothing": (["generate", "--checkpoint", "RUN", "--repetition-penalty", "0"], "repetition_penalty = 0"),
    "no file of a prompt": (["generate", "--checkpoint", "RUN", "--prompt-file", "MISSING"], "prompt_file = "),
    "a prompt that is no text": (
        ["generate", "--checkpoint", "RUN", "--prompt-file", "BINARY"],
        "is not UTF-8 text (byte 128)",
    ),
    "guesses without modules": (["generate", "--checkpoint", "RUN", "--speculative", "--no-mtp"], "mtp = False: leaves"),
    "another shape than the checkpoint's": (
        ["train", "--data", "TEXT", "--init-from", "RUN", "--preset", "small", "--out", "NEW"],
        "its model.embed_tokens.weight is (272, 16), this run asks for (272, 192)",
    ),
    "one size that is not the checkpoint's": (
        ["train", "--data", "TEXT", "--init-from", "RUN", "--model.hidden-size", "32", "--out", "NEW"],
        "this run asks for (272, 32)",
    ),
    "another tokenizer than the checkpoint's": (
        ["train", "--data", "TEXT", "--init-from", "RUN", "--tokenizer", "bytes", "--out", "NEW"],
        "tokenizer = 'bytes': the checkpoint has its own (bpe)",
    ),
    "beginning from nothing": (["train", "--data", "TEXT", "--init-from", "MISSING", "--out", "NEW"], "not a folder"),
    "beginning from itself": (["train", "--data", "TEXT", "--init-from", "RUN", "--out", "RUN"], "holds a run already"),
    "beginning anew while resuming": (
        ["train", "--out", "RUN", "--resume", "--init-from", "FOLDER"],
        "the run there has ''; resume it as it is",
    ),
    "evaluation of nothing": (["evaluate", "--checkpoint", "MISSING"], "not a folder"),
    "evaluation of no token": (["evaluate", "--checkpoint", "RUN", "--tokens", "0"], "tokens = 0: must be at least 1"),
    "evaluation on nothing": (["evaluate", "--checkpoint", "RUN", "--data", "MISSING"], "there is no such file"),
    "chat with nothing": (["chat", "--checkpoint", "MISSING"], "not a folder"),
    "chat below zero": (["chat", "--checkpoint", "RUN", "--temperature", "-1"], "temperature = -1"),
    "chat about nothing": (["chat", "--checkpoint", "RUN", "--domain", "poetry"], "domain = 'poetry': there are rhyme, none"),
    "chat without a word": (["chat", "--checkpoint", "RUN", "--max-new-tokens", "0"], "max_new_tokens = 0"),
    "info of nothing": (["info"], "either --preset NAME or --checkpoint FOLDER"),
    "info of an unknown preset": (["info", "--preset", "deepseek-v4"], "preset = 'deepseek-v4'"),
    "tour of an unknown preset": (["tour", "--preset", "v3"], "preset = 'v3'"),
    "a data set that is not known": (["data", "fetch", "enwik8"], "enwik8"),
    "fetch without a name": (["data", "fetch"], "which one?"),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Good and bad files, and a finished run, for the cases above."""
    root = tmp_path_factory.mktemp("places")
    (root / "rhyme.txt").write_text("five, six, seven, eight.\n" * 40)
    (root / "empty.txt").write_text("")
    (root / "binary.txt").write_bytes(bytes(range(256)))
    (root / "folder").mkdir()
    (root / "folder" / "thesis.txt").write_text("precious")
    assert main(["train", "--data", str(root / "rhyme.txt"), "--out", str(root / "run"), *SMALL]) == 0
    names = {
        "TEXT": "rhyme.txt",
        "EMPTY": "empty.txt",
        "BINARY": "binary.txt",
        "MISSING": "no-such",
        "RUN": "run",
        "NEW": "new",
    }
    return root, {key: str(root / name) for key, name in {**names, "FOLDER": "folder"}.items()}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line_and_exit_code_2(case, places, capsys, monkeypatch):
    root, named = places
    monkeypatch.chdir(root)
    arguments, message = BAD[case]
    for key, path in named.items():
        arguments = [a.replace(key, path) for a in arguments]
    if arguments[0] == "train" and "--out" not in arguments:
        arguments = [*arguments, "--out", str(root / "new")]
    if message == "CONTEXT":
        arguments, message = [*arguments, "--validation-share", "0.9"], "context_length = 500"
    before = sorted((p, p.stat().st_size) for p in root.rglob("*"))
    code, out, err = said(capsys, *arguments)
    assert code == 2, f"exit code {code}; it said: {out}{err}"
    assert err.startswith("minids: ") and err.count("\n") == 1, f"not one line: {err!r}"
    assert message in err
    assert sorted((p, p.stat().st_size) for p in root.rglob("*")) == before, "something on disk has changed"


@pytest.mark.parametrize("refusal", ["mkdir", "touch"])
def test_an_unwritable_folder(refusal, places, capsys, monkeypatch):
    """The tests may run as root, whom no mode of a folder stops, so the system's refusal is played."""
    root, named = places

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, refusal, refused)
    code, _, err = said(capsys, "train", "--data", named["TEXT"], "--out", str(root / "locked"), *SMALL)
    assert code == 2
    assert err.count("\n") == 1 and "cannot be written to (Permission denied)" in err


def test_too_little_memory_is_a_line(places, capsys, monkeypatch):
    """The command has no field to name: what did not fit is said, and what needs less."""
    monkeypatch.setattr("minids.commands.generate.load", lambda *_, **__: np.empty(1 << 57))
    code, out, err = said(capsys, "generate", "--checkpoint", places[1]["RUN"])
    assert code == 2 and not out
    assert err == "minids: not enough memory (unable to allocate 1.00 EiB); smaller sizes, batches or contexts need less\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--preset", "x"], "minids: preset = 'x'"),
        (["--steps", "1.5"], "minids: steps = '1.5': must be a whole number\n"),
        (["--model.precision", "fp9"], "minids: model.precision = 'fp9': must be one of fp32, bf16, fp8\n"),
        (["--model.n-group", "3"], "minids: n_group = 3: must divide"),
    ],
)
def test_as_a_process_a_mistake_has_no_traceback(arguments, line, encoding):
    command = [sys.executable, "-m", "minids", "train", *arguments]
    surroundings = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=surroundings)
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.startswith(line) and done.stderr.count("\n") == 1, done.stderr


def test_where_a_character_cannot_be_printed_another_one_is():
    """Windows writes cp1252 into pipes."""
    for arguments in (["--help"], ["train", "--help"], ["info", "--preset", "tiny"], ["claims"]):
        command = [sys.executable, "-m", "minids", *arguments]
        surroundings = os.environ | {"PYTHONIOENCODING": "cp1252"}
        done = subprocess.run(command, capture_output=True, timeout=120, env=surroundings)
        assert done.returncode == 0 and done.stdout and not done.stderr, (arguments, done.stderr)


def test_the_preset_sets_the_defaults_that_help_shows_and_the_last_one_counts(capsys):
    for arguments, steps in (([], 1750), (["--preset", "small"], 2000), (["--preset", "small", "--preset=tiny"], 1750)):
        out = said(capsys, "train", *arguments, "--help")[1]
        assert f"Optimizer steps. (default: {steps})" in out


def without_pictures(*arguments):
    """Run a command in a process where matplotlib and Pillow are not installed."""
    code = (
        "import sys; sys.modules.update(matplotlib=None, PIL=None); from minids.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)


def test_only_pictures_need_the_drawing_tools(tmp_path, text, places):
    run, checkpoint = str(tmp_path / "run"), places[1]["RUN"]
    done = without_pictures("train", "--data", text, "--out", run, *SMALL)
    assert done.returncode == 0 and 'No loss picture: matplotlib is not installed; pip install "minids[lab]"' in done.stdout
    assert not (tmp_path / "run" / "loss.png").exists()
    assert without_pictures("info", "--checkpoint", run).returncode == 0
    assert without_pictures("figures", "--list").returncode == 0
    assert without_pictures("generate", "--checkpoint", run, "--max-new-tokens", "3").returncode == 0
    assert without_pictures("route", "--checkpoint", checkpoint, "--text", "one").returncode == 0
    for asked in (["route", "--checkpoint", checkpoint, "--text", "x", "--png", str(tmp_path / "x.png")], ["figures", "3"]):
        done = without_pictures(*asked)
        line = 'minids: pictures are drawn by matplotlib, which is not installed; pip install "minids[lab]"\n'
        assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_every_file_that_was_passed_over_is_shown_on_request(tmp_path, capsys):
    (tmp_path / "good.txt").write_text("words to train on\n" * 30)
    for number in range(12):
        (tmp_path / f"bad{number}.bin").write_bytes(b"\0" * (number + 1))
    assert main(["data", "show", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert all(f"bad{number}.bin" in shown for number in range(12)) and "540" in shown
    assert main(["data", "show"]) == 2
