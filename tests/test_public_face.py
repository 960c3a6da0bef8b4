"""Whatever is given to a public function is answered in words: right, or one line that names the argument."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import support

import minids
from minids.checkpoint.tokenizer import byte_tokenizer
from minids.errors import MinidsError
from minids.inference.sampling import Sampling

CONFIG = support.TINY.replace(vocab_size=258)
MODEL = minids.DeepSeekV3(CONFIG)
MODEL.tokenizer = byte_tokenizer()
FILLS = minids.DeepSeekV3(CONFIG.replace(vocab_size=261))
FILLS.tokenizer = byte_tokenizer().with_fim()
TOKENS, TARGETS = support.batch(CONFIG)
LOSSES, SAVED = MODEL.forward(TOKENS, TARGETS)

WRONG = [
    "0.8",
    "",
    1.5,
    -3,
    None,
    True,
    [],
    {},
    object(),
    float("nan"),
    float("inf"),
    b"x",
    [[1], [2, 3]],
    (1, "a"),
    np.zeros(3),
    10**30,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("face") / "model"
    minids.save(MODEL, path)
    return path


def calls(folder):
    """Of each function the arguments of a call that works."""
    drawn = dict(model=MODEL, prompt="ab", max_new_tokens=2)
    return {
        minids.generate: drawn,
        minids.stream: drawn,
        minids.generate_batch: dict(model=MODEL, prompts=["ab", [1]], max_new_tokens=2),
        minids.infill: dict(model=FILLS, prefix="a", suffix="b", max_new_tokens=2),
        minids.load: dict(folder=folder),
        minids.load_streamed: dict(folder=folder),
        minids.load_layer: dict(folder=folder, layer=0),
        minids.save: dict(model=MODEL, folder=folder.parent / "copy"),
        minids.use_backend: dict(name="numpy"),
        minids.use_blas_threads: dict(count=1),
        minids.DeepSeekV3: dict(config=CONFIG),
        minids.Tokenizer.load: dict(folder=folder),
        MODEL.forward: dict(tokens=TOKENS, targets=TARGETS),
        MODEL.backward: dict(saved=SAVED),
        MODEL.forward_backward: dict(tokens=TOKENS, targets=TARGETS),
        MODEL.loss_and_grads: dict(tokens=TOKENS, targets=TARGETS),
        MODEL.losses: dict(tokens=TOKENS, targets=TARGETS),
        MODEL.logits: dict(tokens=TOKENS),
        MODEL.mtp_logits: dict(tokens=TOKENS),
        MODEL.choices: dict(tokens=TOKENS, targets=TARGETS),
        MODEL.update_biases: dict(counts=LOSSES.counts, speed=0.001),
        minids.ModelConfig.preset: dict(name="tiny"),
        minids.TrainConfig.preset: dict(name="tiny"),
        Sampling: dict(temperature=0.5),
    }


NAMES = [
    (function.__qualname__, name)
    for function in calls(Path("anywhere"))
    for name, parameter in inspect.signature(function).parameters.items()
    if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) and name not in ("parameters", "counts")
]


@pytest.mark.parametrize(("function", "argument"), NAMES, ids=lambda name: name)
def test_an_argument_of_the_wrong_kind_is_refused_by_name(folder, function, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # "0.8" and "" are folders to write to
    call, given = next((call, given) for call, given in calls(folder).items() if call.__qualname__ == function)
    refused = 0
    for value in WRONG:
        try:
            answer = call(**(given | {argument: value}))
            if inspect.isgenerator(answer):
                list(answer)
        except MinidsError as error:
            refused += 1
            line = str(error)
            assert "\n" not in line and len(line) < 500
            said = {"name": ("backend", "preset"), "folder": ("folder", "tokenizer")}.get(
                argument, (argument, argument.rstrip("s"))
            )
            assert any(word in line for word in said) or argument == "folder", f"{argument}: {line}"
    assert refused >= 5, f"of {len(WRONG)} wrong values {refused} were refused"


def test_every_public_function_is_called_here(folder):
    called = {call.__qualname__ for call in calls(folder)}
    public = {name for name in minids.__all__ if inspect.isfunction(getattr(minids, name))}
    assert public - called == {"backend_name", "train", "sft", "grpo"}, "these have tests of their own"


@pytest.mark.parametrize("seed", [None, 0, np.int64(3), np.random.default_rng(0)])
def test_every_seed_works_in_batches(seed):
    texts = minids.generate_batch(MODEL, ["ab", "c", "d"], 5, temperature=1.0, seed=seed)
    assert [len(text) for text in texts] == [5, 5, 5]


@pytest.mark.parametrize("name", minids.__all__)
def test_what_is_promised_is_there(name):
    assert getattr(minids, name) is not None


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (MODEL, ["DeepSeekV3: ", "float32", "embedding", "258 × 12", "2 of mla, 1 dense and 1 with experts", "MTP modules"]),
        (MODEL.parameters, ["numbers in", "model.embed_tokens.weight", "258 × 12", "… ", "more"]),
        (MODEL.tokenizer, ["Tokenizer", "258", "1 byte", "<|begin_of_text|> = 256", "<|end_of_text|> = 257"]),
        (minids.DeepSeekV3(support.TINY.replace(tie_word_embeddings=True, num_nextn_predict_layers=0)), ["the embedding's"]),
    ],
    ids=["model", "parameters", "tokenizer", "tied"],
)
def test_what_a_shell_shows_is_a_short_table(thing, words):
    shown = repr(thing)
    assert all(word in shown for word in words), shown
    assert 2 <= len(shown.splitlines()) <= 16 and max(map(len, shown.splitlines())) <= 80


def test_the_table_of_a_model_counts_each_parameter_once():
    numbers = [int(line.split()[-1].replace(",", "")) for line in repr(MODEL).splitlines()[1:]]
    assert sum(numbers) == MODEL.parameters.values.size
