"""Thirteen thousand inputs that nobody should give: each is refused in one clear line or answered rightly, never a traceback.

The seeds are fixed. A case that fails is printed with the failure.
"""

import json
import shutil

import numpy as np
import pytest
from junk import WORDS, changed_bytes, changed_object, quick, refused_or_right, value
from support import TINY, build

import minids
from minids.checkpoint.config_json import config_from_json, config_to_json
from minids.checkpoint.tensor_file import TensorFile
from minids.checkpoint.tokenizer import Tokenizer, byte_tokenizer
from minids.cli import COMMANDS, main
from minids.config import ModelConfig, TrainConfig
from minids.errors import MinidsError
from minids.inference.generate import generate, prompt_ids
from minids.training.batches import Batches, TokenStream
from minids.training.corpus import load_corpus
from minids.training.run import Run

pytestmark = pytest.mark.slow


def test_2000_configurations(tmp_path):
    rng = np.random.default_rng(1)
    bases = [config_to_json(ModelConfig.preset(name)) for name in ("tiny", "deepseek-v3", "deepseek-v2", "kimi-k2")]
    accepted = 0
    for case in range(2000):
        fields = changed_object(rng, bases[case % len(bases)])
        config = refused_or_right(
            lambda fields=fields: config_from_json(fields), lambda fields=fields: json.dumps(fields)[:800]
        )
        if config is not None:
            accepted += 1
            assert isinstance(config, ModelConfig) and config.replace() == config
    assert 100 < accepted < 1900, "all or nothing was refused: this proves little"


def test_1500_settings_of_a_run_and_of_a_model():
    rng = np.random.default_rng(2)
    for case in range(1500):
        kind = (ModelConfig, TrainConfig)[case % 2]
        names = list(kind.__dataclass_fields__)
        changes = {names[rng.integers(len(names))]: value(rng) for _ in range(rng.integers(1, 3))}
        refused_or_right(lambda kind=kind, c=changes: kind.preset("tiny", **c), lambda c=changes: repr(c)[:500])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of a run, with its list of checksums."""
    home = tmp_path_factory.mktemp("fuzz")
    (home / "rhyme.txt").write_text("one, two, three, four, five; once I caught a fish alive.\n\n" * 40)
    model = ModelConfig.preset("tiny", hidden_size=12, num_hidden_layers=1, moe_intermediate_size=4, intermediate_size=8)
    model = model.replace(num_attention_heads=2, q_lora_rank=6, kv_lora_rank=6, qk_nope_head_dim=4, qk_rope_head_dim=4)
    run = TrainConfig(steps=2, batch_size=2, context_length=8, eval_tokens=16, sample_every=0, save_every=1, workers=1)
    Run.start(home / "run", model, run, [str(home / "rhyme.txt")], "tiny", lambda line: None).run()
    return home / "run"


@pytest.mark.parametrize("listed", [True, False], ids=["with checksums", "without"])
def test_3000_damaged_checkpoints(folder, tmp_path, listed):
    """With checksums every change is noticed. Without, only the numbers themselves can change unseen."""
    rng = np.random.default_rng(3)
    copy = tmp_path / "copy"
    shutil.copytree(folder / "step-000002", copy)
    if not listed:
        (copy / "checksums.json").unlink()
    original = minids.load(copy)
    files = sorted(path for path in copy.iterdir() if path.name not in ("optimizer.safetensors", "training_state.json"))
    refused = 0
    for case in range(1500):
        file = files[case % len(files)]
        whole = file.read_bytes()
        damaged = changed_bytes(rng, whole)
        if file.suffix == ".json" and rng.random() < 0.5:
            damaged = json.dumps(changed_object(rng, json.loads(whole))).encode()
        file.write_bytes(damaged)
        model = refused_or_right(lambda: minids.load(copy), lambda file=file, d=damaged: f"{file.name}: {d[:300]!r}")
        file.write_bytes(whole)
        refused += model is None
        if model is not None and listed and damaged != whole and file.name != "checksums.json":
            raise AssertionError(f"{file.name} was changed and nobody noticed")
        if model is not None and file.suffix != ".json":
            own = (
                model.config.mtp_own_matrices and not original.config.mtp_own_matrices
            )  # its copies of embedding and head differ now
            assert own or model.parameters.values.size == original.parameters.values.size
    assert refused > (1200 if listed else 400)


def test_2000_headers_of_tensor_files(tmp_path):
    rng = np.random.default_rng(4)
    path = tmp_path / "x.safetensors"
    header = {
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    }
    for _ in range(2000):
        text = json.dumps(changed_object(rng, header)).encode()
        length = len(text) if rng.random() < 0.8 else int(rng.integers(0, 2**62))
        path.write_bytes(length.to_bytes(8, "little") + text + bytes(int(rng.integers(0, 64))))

        def read():
            file = TensorFile(path)
            return [file.read(name) for name in file.names()]

        refused_or_right(read, lambda text=text: text.decode()[:500])


def test_1000_corpora(tmp_path):
    rng = np.random.default_rng(5)
    tokenizer = byte_tokenizer()
    path = tmp_path / "text.txt"
    alphabet = [
        b"word ",
        b"\n",
        b"\n\n",
        b"\r\n",
        "größe ".encode(),
        "語".encode(),
        b"\xff",
        b"\xc3",
        b"\0",
        b" ",
        b"x" * 3000,
        b"\xef\xbb\xbf",
        b"\x1b[2J",
    ]
    for _ in range(1000):
        pieces = rng.integers(0, len(alphabet), rng.integers(0, 40))
        path.write_bytes(b"".join(alphabet[i] for i in pieces))

        def read():
            corpus = load_corpus([str(path)])
            sides = corpus.split(0.1)
            mark = 3 * path.read_bytes().startswith(b"\xef\xbb\xbf")  # a byte-order mark is no text
            assert sum(len(d.text) for side in sides for d in side.documents) == path.stat().st_size - mark
            return Batches(TokenStream.encode(sides[0].documents, tokenizer), 2, 8, np.random.default_rng(0)).next()

        refused_or_right(read, lambda: repr(path.read_bytes()[:200]))


def test_1000_prompts():
    rng = np.random.default_rng(6)
    model = build(
        TINY.replace(vocab_size=258, max_position_embeddings=24, bos_token_id=256, eos_token_id=257), dtype=np.float32
    )
    model.tokenizer = byte_tokenizer()
    generate(model, "x" * 30, 2, cache="latent")  # compiles
    for _ in range(1000):
        points = rng.integers(0, 0x110000, rng.integers(0, 50))
        prompt = (
            "".join(chr(p) for p in points) if rng.random() < 0.7 else WORDS[rng.integers(len(WORDS))] * int(rng.integers(1, 9))
        )
        new = refused_or_right(lambda p=prompt: generate(model, p, 2, cache="latent"), lambda p=prompt: repr(p))
        assert new is not None and len(new) == 2, f"any text is a prompt: {prompt!r}"
    for _ in range(500):
        ids = value(rng)
        refused_or_right(lambda ids=ids: prompt_ids(model, ids), lambda ids=ids: repr(ids))


def test_500_tokenizers(folder, tmp_path):
    rng = np.random.default_rng(7)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / "step-000002" / name, tmp_path / name)
    for case in range(500):
        path = tmp_path / ("tokenizer.json", "tokenizer_config.json")[case % 2]
        whole = path.read_bytes()
        path.write_bytes(changed_bytes(rng, whole))
        refused_or_right(lambda: Tokenizer.load(tmp_path), lambda path=path: f"{path.name}: {path.read_bytes()[:200]!r}")
        path.write_bytes(whole)


def test_500_descriptions_of_a_run(folder, monkeypatch):
    def only_ours(spec):  # "/" is a folder of text like any other, and takes its time
        if list(spec) != [str(folder.parent / "rhyme.txt")]:
            raise MinidsError("data: not the text of this test")
        return load_corpus(spec)

    monkeypatch.setattr("minids.training.run.load_corpus", only_ours)
    rng = np.random.default_rng(8)
    for case in range(500):
        path = folder / ("run.json", "latest")[case % 5 == 4]
        whole = path.read_bytes()
        damaged = changed_bytes(rng, whole)
        if path.suffix == ".json" and rng.random() < 0.7:
            damaged = json.dumps(changed_object(rng, json.loads(whole))).encode()
        path.write_bytes(damaged)

        def resume():
            run = Run.resume(folder, say=lambda line: None)
            run.metrics.close()
            run.folder.unlock()

        refused_or_right(resume, lambda path=path, d=damaged: f"{path.name}: {d[:300]!r}")
        path.write_bytes(whole)


OPTIONS = {
    "train": [
        "--preset",
        "--data",
        "--out",
        "--resume",
        "--steps",
        "--learning-rate",
        "--model.n-group",
        "--tokenizer",
        "--model.attention",
    ],
    "generate": ["--checkpoint", "--prompt", "--temperature", "--top-p", "--top-k", "--cache", "--max-new-tokens", "--stream"],
    "info": ["--preset", "--checkpoint", "--context", "--batch", "--json"],
    "tour": ["--preset"],
    "cost": [
        "--preset",
        "--tokens",
        "--context",
        "--peak",
        "--utilisation",
        "--gpus",
        "--price",
        "--laptop",
        "--memory",
        "--json",
    ],
    "compare": ["--context", "--json"],
    "claims": ["v3_total", "--json"],
    "pipeline": ["--schedule", "--stages", "--microbatches", "--forward", "--backward", "--weight", "--overlapped"],
    "data": ["list", "fetch"],
    "sft": ["--checkpoint", "--data", "--out", "--resume", "--epochs", "--overwrite"],
    "reward-model": ["--checkpoint", "--data", "--out", "--resume", "--validation-share"],
    "grpo": ["--checkpoint", "--task", "--reward-model", "--out", "--resume", "--top-p", "--drop-above", "--group"],
}
VALUES = [
    *WORDS,
    "tiny",
    "deepseek-v3",
    "0",
    "1",
    "-1",
    "3",
    "7",
    "0.5",
    "nan",
    "inf",
    "1e400",
    "9" * 30,
    "--help-me",
    "DualPipe",
]


def test_1000_command_lines(tmp_path, monkeypatch, capsys):
    """Parsed and refused, or run. Nothing may be trained or read here: the corpus is taken away."""
    monkeypatch.chdir(tmp_path)

    def no_text(spec):
        raise MinidsError("data: this test has none")

    monkeypatch.setattr("minids.training.run.load_corpus", no_text)
    monkeypatch.setattr("minids.training.corpus.load_corpus", no_text)
    rng = np.random.default_rng(9)
    commands = sorted(set(OPTIONS) & set(COMMANDS))
    codes = set()
    for case in range(1000):
        command = commands[case % len(commands)]
        arguments = [command]
        for _ in range(rng.integers(0, 4)):
            options = OPTIONS[command]
            arguments.append(options[rng.integers(len(options))] if rng.random() < 0.9 else VALUES[rng.integers(len(VALUES))])
            if rng.random() < 0.8:
                arguments.append(VALUES[rng.integers(len(VALUES))])
        with quick(lambda a=arguments: repr(a)):
            try:
                code = main(arguments)
            except SystemExit as stop:  # --help
                code = stop.code
            except Exception as error:
                raise AssertionError(f"{type(error).__name__}: {error} for {arguments!r}") from error
        err = capsys.readouterr().err
        codes.add(code)
        assert code in (0, 2), f"exit code {code} for {arguments!r}"
        assert "Traceback" not in err
        if code == 2:
            assert err.startswith("minids: ") and len(err.strip().splitlines()) == 1, f"{err!r} for {arguments!r}"
    assert codes == {0, 2}
