"""One HTML file in which a trained model computes: weights, tokenizer, configuration, engine and style, and no request.

    fits(config, …)      is the model one that a page can hold? Refused with the number that would do, before a weight is read
    build(model)         → the page as text
    write(folder, out)   minids page

Scripts are inlined as they stand in this folder; there is no build step. The engine's files are run twice: by the page, which
borrows its tokenizer and its router, and by the worker in which the model computes, made from the same text.

Nothing leaves the page. Its Content-Security-Policy forbids everything (``default-src 'none'``) but what is written in the file
itself: inline script, inline style, and a worker from a ``blob:`` address. That one exception is needed because a worker must
have an address and a file opened from a disk has no other file to name; a blob is memory of this very page.
"""

import base64
import dataclasses
import html
import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from minids.checkpoint.config_json import read_config
from minids.checkpoint.extension import run_setting
from minids.checkpoint.latest import resolved
from minids.checkpoint.model_folder import load
from minids.config import ModelConfig
from minids.errors import MinidsError, refuse
from minids.files import staged
from minids.lab.page.described import described
from minids.lab.page.expected import READ, TEXTS, expected
from minids.lab.page.pack import Form, arrays_of, bytes_needed, form_of, pack, unpack
from minids.model import DeepSeekV3
from minids.terminal import name_of

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; worker-src blob:; "
    "base-uri 'none'; form-action 'none'"
)
ENGINE = ("engine", "weights", "tokenizer", "sequence", "mistakes")
"""Scripts that page and worker share, in this order."""
WORKER = ("selftest", "worker")
PANELS = ("state", "explain", "draw", "text", "cache", "wall", "router", "attention", "mtp", "wrong", "tour", "page")

STYLES = ("page", "panels", "tour")

MOST_BYTES = 32 << 20
"""Of packed weights: 43 MB of base64 in the file, and four times as much in memory once they are float32."""
MOST_TOKENS = 32_768
"""Rows of the vocabulary: the head is multiplied with all of them for every token, in one thread of JavaScript."""
MOST_EXPERTS = 256
"""Columns of the router's wall."""
LONGEST = 1024
"""Tokens a page writes at most, whatever the model's context: every one of them is drawn."""


def fits(config: ModelConfig, weights: Form, source: str) -> None:
    """Refuse what no page can hold or draw, in one line with the number that would do."""
    if config.attention != "mla":
        raise refuse("attention", config.attention, f"the page draws MLA's latent cache; {source} has none")
    if config.vocab_size > MOST_TOKENS:
        because = f"too many for a page, which computes all of them for every token; up to {MOST_TOKENS:,} fit"
        raise refuse("vocab_size", config.vocab_size, because)
    if config.n_routed_experts > MOST_EXPERTS:
        raise refuse("n_routed_experts", config.n_routed_experts, f"too many for a page; up to {MOST_EXPERTS} fit")
    if config.mtp_own_matrices:
        raise refuse("mtp_own_matrices", True, "the page's MTP modules use the model's embedding and head; open it without MTP")
    if config.mtp_state != "normed" and config.num_nextn_predict_layers > 1:
        raise refuse("mtp_state", config.mtp_state, "the page's modules hand on what is normed; say normed, or have one module")
    size = bytes_needed({p.name: p.shape for p in DeepSeekV3.declared(config)}, weights)
    if size > MOST_BYTES:
        halved = " or try --weights fp8" if weights == "float16" else ""
        raise MinidsError(
            f"{source}: its weights take {size:,} bytes as {weights}, too many for a page; up to {MOST_BYTES:,} fit{halved}"
        )


def build(model: DeepSeekV3, weights: Form = "fp8", name: str = "DeepSeek-V3", trained_length: int = 0) -> str:
    """The page of ``model``, which needs a tokenizer. ``name`` is shown as its title.

    ``trained_length``: tokens of the sequences it was trained with, where a text is to end there; 0: the model's context.
    """
    fits(model.config, weights, name)
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise MinidsError(f"{name}: has no tokenizer, so there is nothing to type; save it with a tokenizer.json")
    if tokenizer.vocab_size > model.config.vocab_size:
        because = f"the model has {model.config.vocab_size} rows for them; it is another model's tokenizer"
        raise refuse("tokenizer", f"{tokenizer.vocab_size} tokens", because)
    listed, data = pack(arrays_of(model), weights)
    stored = unpack(listed, data)
    tests = []
    for text in TEXTS:
        ids = [*tokenizer.beginning, *tokenizer.encode(text).tolist()][: min(READ, model.config.max_position_embeddings // 2)]
        if ids:
            tests.append({"text": text, "encoded": tokenizer.encode(text).tolist(), **expected(stored, model.config, ids)})
    about = {
        "name": name,
        "config": dataclasses.asdict(model.config),
        "longest": min(model.config.max_position_embeddings, trained_length or LONGEST, LONGEST),
        "weights": weights,
        "bytes": len(data),
        "parameters": sum(p.size for p in model.parameters),
        "in_fp8": sum(array.size for key, array in stored.items() if form_of(key, array.ndim, weights) == "fp8"),
        "tensors": listed,
        "tokenizer": described(tokenizer),
        "tests": tests,
    }
    return _assembled(about, base64.b64encode(data).decode())


def write(folder: str | Path, out: str | Path, weights: Form = "fp8") -> int:
    """Build the page of a checkpoint's folder into the file ``out``; its size in bytes."""
    path = resolved(folder)
    if not path.is_dir():
        raise refuse("checkpoint", str(folder), "there is no such folder; name a run or a Hugging Face folder")
    config = read_config(path)
    fits(config, weights, str(folder))
    seen = 0 if config.rope_scaling else int(run_setting(path, "context_length", 0))  # beyond it a model without YaRN babbles
    page = build(load(folder), weights, name_of(Path(folder).resolve().name), seen).encode()
    out = Path(out)
    if out.is_dir():
        raise refuse("out", str(out), "is a folder; name a file, such as page.html")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refuse("out", str(out), f"its folder cannot be made: {error.strerror or error}") from None
    if not os.access(out.parent, os.W_OK):
        raise refuse("out", str(out), "its folder cannot be written to")
    with staged() as staging:
        with staging.create(out) as file:
            file.write(page)
        staging.publish()
    return len(page)


def source(name: str) -> str:
    """A file of this folder."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def engine_sources() -> str:
    """All scripts that compute, as the worker runs them."""
    return "\n".join(source(f"{name}.js") for name in (*ENGINE, *WORKER))


def _assembled(about: dict[str, Any], data: str) -> str:
    """page.html with everything put in its place."""
    parts = {
        "policy": POLICY,
        "title": html.escape(about["name"]),
        "style": "\n".join(source(f"{name}.css") for name in STYLES),
        "about": json.dumps(about, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "weights": data,
        "engine": _scripts(ENGINE),
        "worker": _scripts(WORKER),
        "panels": _scripts(PANELS),
    }
    page = source("page.html")
    for name, text in parts.items():
        page = page.replace(f"{{{{{name}}}}}", text, 1)
    return page


def _scripts(names: tuple[str, ...]) -> str:
    """Scripts as they stand, but that none of their strings ends the element they are put into."""
    return "\n".join(source(f"{name}.js") for name in names).replace("</", "<\\/")
