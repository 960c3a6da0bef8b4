"""The page as a file: what is in it, what is not, and what is refused. Needs neither Node nor a browser."""

import base64
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from support import TINY, build
from support_page import CONFIGS

import minids
from minids import cli
from minids.checkpoint.config_json import config_to_json
from minids.checkpoint.model_folder import save
from minids.checkpoint.tokenizer import byte_tokenizer, character_tokenizer
from minids.config import ModelConfig
from minids.errors import MinidsError
from minids.lab import page
from minids.lab.page.build import ENGINE, MOST_BYTES, MOST_TOKENS, PANELS, POLICY, STYLES, WORKER, fits, source
from minids.lab.page.described import described
from minids.lab.page.expected import expected
from minids.lab.page.pack import arrays_of, bytes_needed, form_of, pack, unpack
from minids.ops import bfloat16, quantise

SMALL = TINY.replace(vocab_size=258, bos_token_id=256, eos_token_id=257)
COMMITTED = Path(__file__).parents[3] / "docs" / "page" / "index.html"
MODEL = Path(__file__).parents[3] / "notebooks" / "model"


def small_model(**changes):
    model = build(SMALL.replace(**changes), dtype=np.float32)
    model.tokenizer = byte_tokenizer()
    return model


@pytest.fixture(scope="module")
def built() -> str:
    return page.build(small_model(), name="a <small> model")


# Weights.


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_come_back_as_the_release_would_store_them(name):
    arrays = arrays_of(build(CONFIGS[name], dtype=np.float32))
    found = unpack(*pack(arrays, "fp8"))
    assert found.keys() == arrays.keys()
    for key, array in arrays.items():
        if array.ndim < 2:
            want = array
        elif any(part in key for part in ("embed_tokens", "lm_head", "mlp.gate.", "eh_proj")):
            want = bfloat16.decode(bfloat16.encode(array))
        else:  # each matrix, each expert by itself, in tiles of 128 × 128
            matrices = [quantise.rounded(matrix, (128, 128)) for matrix in array.reshape(-1, *array.shape[-2:])]
            want = np.stack(matrices).reshape(array.shape)
        assert np.array_equal(found[key], want), key


def test_a_matrix_wider_than_a_tile_has_a_scale_for_every_tile():
    wide = np.ones((3, 130, 257), np.float32) * 1e-3
    wide[1, 129, 256] = 100  # an outlier in the last tile of the second expert
    listed, data = pack({"mlp.experts.up_proj.weight": wide}, "fp8")
    assert len(data) == wide.size + (-wide.size % 4) + 3 * 2 * 3 * 4
    found = unpack(listed, data)["mlp.experts.up_proj.weight"]
    assert np.allclose(found[0], 1e-3, rtol=0.04) and np.allclose(found[1, :128, :256], 1e-3, rtol=0.04)
    assert found[1, 128, 256] == 0 or found[1, 128, 256] > 0.1 / 448  # only its own tile suffers


def test_float16_keeps_eleven_bits():
    arrays = arrays_of(build(TINY, dtype=np.float32))
    found = unpack(*pack(arrays, "float16"))
    for key, array in arrays.items():
        assert np.allclose(found[key], array, rtol=2**-11, atol=2**-25), key


def test_which_arrays_are_quantised_is_the_census_of_the_release():
    """reference: E4M3 but for embedding, head, router, eh_proj and norms (BF16), and routing biases (float32)."""
    fp8 = {p.name for p in minids.DeepSeekV3.declared(TINY) if form_of(p.name, len(p.shape), "fp8") == "fp8"}
    assert not any(re.search(r"norm|embed|lm_head|mlp\.gate\.|eh_proj", name) for name in fp8)
    assert {name.rsplit(".", 2)[1] for name in fp8} == {
        "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip


def test_what_is_no_number_is_refused():
    model = small_model()
    model.parameters["model.norm.weight"].value[0] = np.nan
    with pytest.raises(MinidsError, match=r"model\.norm\.weight: holds NaN or infinity"):
        page.build(model)


def test_what_float16_cannot_hold_is_refused():
    model = small_model()
    model.parameters["lm_head.weight"].value[0, 0] = 1e5
    with pytest.raises(MinidsError, match=r"lm_head\.weight: holds 100000, beyond float16; use --weights fp8"):
        page.build(model, weights="float16")


# The file.


def about_of(text: str) -> dict:
    return json.loads(
        re.search(r'<script type="application/json" id="about">(.*?)</script>', text, re.DOTALL)[1].replace("<\\/", "</")
    )


def test_everything_is_in_its_place(built):
    assert "{{" not in re.sub(r"\$\{\{.*?\}\}", "", built.replace("{{ ", "")), "a part was not filled in"
    assert f'content="{POLICY}"' in built
    assert built.index("Content-Security-Policy") < built.index("<style>") < built.index("<script")
    assert "<title>a &lt;small&gt; model" in built
    for name in (*ENGINE, *WORKER, *PANELS):
        assert source(f"{name}.js").replace("</", "<\\/") in built, name


def test_nothing_is_fetched(built):
    assert "default-src 'none'" in POLICY and "blob:" in POLICY.split("worker-src")[1]
    assert not re.search(r"https?:|//www|@import|url\(|\bfetch\(|XMLHttpRequest|importScripts|sendBeacon|WebSocket", built)
    assert not re.search(r"<(?:link|img|iframe|object|base|form)\b", built)
    assert set(re.findall(r'href="([^"]*)"', built)) == {"#text", "#cache", "#router", "#attention", "#guesses", "#mistakes"}
    assert not re.search(r"<script[^>]*\bsrc=", built)


def test_no_data_ends_a_script_early():
    model = small_model()
    name = "</script><script>alert(1)<!-- "
    text = page.build(model, name=name)
    scripts = []

    class Scripts(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag == "script":
                scripts.append("")

        def handle_data(self, data):
            if self.cdata_elem == "script":
                scripts[-1] += data

    Scripts().feed(text)
    assert len(scripts) == 5  # what it is about, weights, engine, worker, panels
    assert json.loads(scripts[0])["name"] == name


def test_the_same_model_gives_the_same_bytes(built):
    assert page.build(small_model(), name="a <small> model") == built


def test_what_the_page_compares_itself_with_is_the_package(built):
    about = about_of(built)
    assert len(about["tests"]) == 3
    model = small_model()
    stored = unpack(*pack(arrays_of(model), "fp8"))
    twin = minids.DeepSeekV3(model.config, seed=None, dtype=np.float64)
    for p in twin.parameters:
        p.value[...] = stored[p.name]
    for name, bias in twin.parameters.buffers.items():
        bias[...] = stored[name]
    for test in about["tests"]:
        logits = twin.logits(np.array([test["tokens"]]))[0]
        assert np.allclose(np.take_along_axis(logits, np.array(test["best"]), axis=-1), test["logits"], atol=1e-8)
        routed = [at for at in test["experts"] if at is not None]
        assert all(np.array(at).shape == (len(test["tokens"]), model.config.num_experts_per_tok) for at in routed)
        assert test["tokens"][0] == 256 and model.tokenizer.encode(test["text"]).tolist() == test["encoded"]


def test_expected_experts_are_those_of_the_model():
    model = build(TINY)
    tokens = np.arange(10) % TINY.vocab_size
    weights = {name: np.asarray(value, np.float32) for name, value in arrays_of(model).items()}
    twin = minids.DeepSeekV3(TINY, seed=None, dtype=np.float64)
    for p in twin.parameters:
        p.value[...] = weights[p.name]
    for name, bias in twin.parameters.buffers.items():
        bias[...] = weights[name]
    found = expected(weights, TINY, tokens.tolist())
    chosen = [c.reshape(-1, TINY.num_experts_per_tok) for c in twin.choices(tokens[None], tokens[None])]
    assert found["experts"][0] is None
    assert np.array_equal(found["experts"][1], np.sort(chosen[0], axis=-1))


# Refusals: one line, with the number that would fit.


def test_a_model_too_large_is_refused_before_a_weight_is_read(tmp_path, capsys):
    folder = tmp_path / "v3"
    folder.mkdir()
    config = config_to_json(ModelConfig.preset("deepseek-v3", vocab_size=20000))
    (folder / "config.json").write_text(json.dumps(config))
    assert cli.main(["page", "--checkpoint", str(folder), "--out", str(tmp_path / "p.html")]) == 2
    said = capsys.readouterr().err
    assert f"too many for a page; up to {MOST_BYTES:,} fit" in said and said.count("\n") == 1
    assert not (tmp_path / "p.html").exists()


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(vocab_size=MOST_TOKENS + 1), f"vocab_size = {MOST_TOKENS + 1}: .*up to 32,768 fit"),
        (dict(n_routed_experts=512), "n_routed_experts = 512: .*up to 256 fit"),
        (dict(attention="mha", num_key_value_heads=None), "attention = 'mha': the page draws MLA"),
    ],
)
def test_what_no_page_can_show_is_refused(changes, words):
    with pytest.raises(MinidsError, match=words):
        fits(SMALL.replace(**changes), "fp8", "model")


def test_float16_may_be_too_large_where_fp8_is_not():
    config = ModelConfig.preset("tiny", hidden_size=512, moe_intermediate_size=160, num_hidden_layers=6)
    shapes = {p.name: p.shape for p in minids.DeepSeekV3.declared(config)}
    assert bytes_needed(shapes, "fp8") < MOST_BYTES < bytes_needed(shapes, "float16")
    fits(config, "fp8", "model")
    with pytest.raises(MinidsError, match=r"or try --weights fp8$"):
        fits(config, "float16", "model")


def test_a_model_without_its_tokenizer_is_refused():
    model = build(SMALL, dtype=np.float32)
    with pytest.raises(MinidsError, match=r"has no tokenizer"):
        page.build(model)
    model = build(TINY, dtype=np.float32)
    model.tokenizer = byte_tokenizer()
    with pytest.raises(MinidsError, match=r"the model has 19 rows"):
        page.build(model)


def test_a_tokenizer_that_the_page_would_read_otherwise_is_refused():
    tokenizer = byte_tokenizer()
    spec = json.loads(tokenizer.backend.to_str())
    for change, words in [
        ({"normalizer": {"type": "NFKC"}}, "tokenizer.normalizer = 'NFKC'"),
        (
            {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}},
            "'Metaspace'",
        ),
    ]:
        import tokenizers

        from minids.checkpoint.tokenizer import Tokenizer

        other = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps({**spec, **change})))
        with pytest.raises(MinidsError, match=words):
            described(other)


def test_tokenizers_are_described_by_their_spelling():
    of_bytes = described(byte_tokenizer())
    assert len(of_bytes["pieces"]) == 258 and of_bytes["pieces"][256:] == [None, None]
    assert of_bytes["specials"] == {"256": "<|begin_of_text|>", "257": "<|end_of_text|>"}
    assert (of_bytes["bos"], of_bytes["eos"], of_bytes["merges"]) == (256, 257, [])
    of_characters = described(character_tokenizer(["abcä"]))
    assert of_characters["whole_words"] and of_characters["cuts"] == [r"[\s\S]"] and len(of_characters["pieces"]) == 4


@pytest.mark.parametrize("damage", ["cut", "missing", "foreign", "no folder", "config"])
def test_a_damaged_or_foreign_checkpoint_is_refused_in_one_line(damage, tmp_path, capsys):
    folder = tmp_path / "model"
    save(small_model(), folder)
    if damage == "cut":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif damage == "missing":
        (folder / "model.safetensors").unlink()
    elif damage == "foreign":
        (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 64}')
    elif damage == "config":
        (folder / "config.json").write_text("{")
    else:
        folder = tmp_path / "nothing"
    out = tmp_path / "page.html"
    assert cli.main(["page", "--checkpoint", str(folder), "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("minids: ") and said.err.count("\n") == 1 and not said.out
    assert not out.exists()


def test_a_place_that_cannot_be_written_is_refused(tmp_path, capsys):
    save(small_model(), tmp_path / "model")
    assert cli.main(["page", "--checkpoint", str(tmp_path / "model"), "--out", str(tmp_path)]) == 2
    assert "is a folder; name a file" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert cli.main(["page", "--checkpoint", str(tmp_path / "model"), "--out", str(tmp_path / "file" / "page.html")]) == 2
    assert "cannot be" in capsys.readouterr().err


# Command and notebook.


def test_the_command_writes_the_page_of_a_folder(tmp_path, capsys):
    save(small_model(), tmp_path / "model")
    sizes = {}
    for weights in ("fp8", "float16"):
        out = tmp_path / "new" / f"{weights}.html"
        assert cli.main(["page", "--checkpoint", str(tmp_path / "model"), "--out", str(out), "--weights", weights]) == 0
        assert f"{out}: " in capsys.readouterr().out
        about = about_of(out.read_text(encoding="utf-8"))
        assert about["name"] == "model" and about["weights"] == weights and about["longest"] == 64
        sizes[weights] = about["bytes"]
    assert sizes["fp8"] < sizes["float16"]


def test_a_text_ends_where_training_sequences_did(tmp_path):
    save(small_model(), tmp_path / "run" / "step-000010")
    (tmp_path / "run" / "latest").write_text("step-000010\n")
    (tmp_path / "run" / "run.json").write_text(json.dumps({"train": {"context_length": 24}}))
    page.write(tmp_path / "run", tmp_path / "page.html")
    about = about_of((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert about["longest"] == 24 and about["name"] == "run"


def test_a_notebooks_cell_holds_the_page_itself():
    cell = page.show(small_model(), height=700)
    markup = cell._repr_html_()
    assert "height:700px" in markup and "src=" not in markup.split("srcdoc=")[0]
    inside = html.unescape(re.search(r'srcdoc="(.*)"></iframe>', markup, re.DOTALL)[1])
    assert inside == page.build(small_model())


# The page that stands in the repository.


def test_the_committed_page_is_small_and_of_these_scripts():
    text = COMMITTED.read_text(encoding="utf-8")
    assert len(text.encode()) <= 2_500_000
    assert f'content="{POLICY}"' in text and not re.search("https?:", text)
    for name in (*ENGINE, *WORKER, *PANELS):
        assert source(f"{name}.js").replace("</", "<\\/") in text, (
            f"{name}.js has changed since: build docs/page/index.html again"
        )
    for name in STYLES:
        assert source(f"{name}.css") in text, f"{name}.css has changed since: build docs/page/index.html again"


def test_the_model_of_the_notebooks_is_the_one_in_the_page():
    text = COMMITTED.read_text(encoding="utf-8")
    data = base64.b64decode(re.search(r'id="weights"[^>]*>(.*?)</script>', text, re.DOTALL)[1])
    model = minids.load(MODEL)
    stored, found = unpack(about_of(text)["tensors"], data), arrays_of(model)
    assert stored.keys() == found.keys()
    for name, array in stored.items():
        assert np.array_equal(array, found[name]), f"{name}: write both again, see notebooks/model/README.md"
    assert described(model.tokenizer) == about_of(text)["tokenizer"]
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 4_000_000


def test_the_command_writes_the_pages_weights_as_a_folder_too(tmp_path, capsys):
    save(small_model(), tmp_path / "model")
    arguments = [
        "page",
        "--checkpoint",
        str(tmp_path / "model"),
        "--out",
        str(tmp_path / "p.html"),
        "--folder",
        str(tmp_path / "fp8"),
    ]
    assert cli.main(arguments) == 0 and "the same weights" in capsys.readouterr().out
    want = unpack(*pack(arrays_of(small_model()), "fp8"))
    for name, array in arrays_of(minids.load(tmp_path / "fp8")).items():
        assert np.array_equal(array, want[name]), name
    assert cli.main([*arguments, "--weights", "float16"]) == 2
    assert "is written in FP8, and --weights is float16" in capsys.readouterr().err
