"""A trained run, opened for pictures: its model, its held-out text, and what the model does with it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minids.checkpoint.latest import latest_checkpoint
from minids.checkpoint.model_folder import load
from minids.config import ModelConfig
from minids.errors import refuse
from minids.inference.generate import generate
from minids.lab.analysis.parameters import parts
from minids.lab.figures.picture import Rows
from minids.layers.block import Block, Saved
from minids.layers.positions import Rotary
from minids.model import DeepSeekV3
from minids.ops.router import Routing
from minids.terminal import clean
from minids.training.batches import TokenStream
from minids.training.corpus import Corpus, load_corpus
from minids.training.run_folder import RunFolder
from minids.training.text import held_out_prompt
from minids.words import si


class Passing(NamedTuple):
    """One block while tokens pass through it."""

    index: int
    block: Block
    normed: np.ndarray  # (B, T, d) what its attention reads
    rotary: Rotary
    routing: Routing | None  # None in a dense block
    saved: Saved  # all that its forward pass kept


def through(model: DeepSeekV3, tokens: np.ndarray) -> Iterator[Passing]:
    """tokens (B, T) block by block: what enters the attention of each, and what its router chose."""
    x, _ = model.embed_tokens.forward(tokens)
    rotary = model.rotary(tokens.shape[1])
    for index, block in enumerate(model.blocks):
        normed, _ = block.input_norm.forward(x)
        x, saved = block.forward(x, rotary)
        yield Passing(index, block, normed, rotary, saved.ffn.routing if block.moe else None, saved)


class Trained:
    """What a run's folder holds. ``Trained.open`` keeps the last one, which several pictures share."""

    def __init__(self, run: Path):
        if latest_checkpoint(run) is None:
            raise refuse("run", str(run), "holds no trained model; train one with minids train --out " + str(run))
        self.described, self.about = RunFolder(run).description(), about(run)
        self.model: DeepSeekV3 = load(run)
        self.tokenizer = self.model.tokenizer
        self.held_out: Corpus = load_corpus(self.described["data"]).split(self.described["train"]["validation_share"])[1]

    @staticmethod
    def open(run: str | Path) -> Trained:
        return _opened(Path(run).resolve())

    def signed(self, rows: Rows) -> Rows:
        """Rows whose first column says whose they are."""
        return [{"model": self.about, **row} for row in rows]

    def moe_blocks(self) -> list[int]:
        """Blocks with experts; refused where there is none."""
        found = [i for i, block in enumerate(self.model.blocks) if block.moe is not None]
        if not found:
            raise refuse("run", self.about, "its model has no block with experts, which this picture is about")
        return found

    def routings(self, tokens: np.ndarray) -> dict[int, Routing]:
        """Block → what its router did with tokens (B, T)."""
        return {at.index: at.routing for at in through(self.model, tokens) if at.routing is not None}

    def window(self, domain: str, length: int, windows: int = 1) -> np.ndarray:
        """The first tokens of a domain's held-out text behind the beginning of a document, (windows, length)."""
        if domain not in self.held_out.domains:
            raise refuse("domain", domain, f"this run was trained on {', '.join(self.held_out.domains)}")
        tokens = TokenStream.encode(self.held_out.of(domain), self.tokenizer).tokens
        start = len(tokens) // 3  # what stands in a document tells more of its kind than its title
        return np.resize(tokens[start : start + windows * length], (windows, length)).astype(np.int32)

    def windows(self, length: int, windows: int) -> np.ndarray:
        """``windows`` windows of every domain, (domains · windows, length)."""
        return np.concatenate([self.window(domain, length, windows) for domain in self.held_out.domains])

    def letters(self, tokens: np.ndarray) -> list[str]:
        """Each token as a short piece of text, blanks and line ends made visible; what cannot be printed is a dot."""
        texts = (clean(self.tokenizer.decode([int(t)])).replace(" ", "␣").replace("\n", "↵") for t in tokens)
        return ["".join(c if c.isprintable() and c != "�" else "·" for c in text) or "·" for text in texts]

    def samples(self, length: int = 110) -> Rows:
        """One continuation of a held-out beginning per domain."""
        rows: Rows = []
        for i, domain in enumerate(self.held_out.domains):
            prompt = held_out_prompt(self.held_out, domain)
            start = [*self.tokenizer.beginning, *self.tokenizer.encode(prompt)]
            rng = np.random.default_rng([self.described["train"]["seed"], i])
            new = generate(self.model, start, length, temperature=0.7, top_p=0.95, seed=rng)
            text = clean(self.tokenizer.decode(new))
            rows.append({"group": "sample", "domain": domain, "prompt": prompt, "text": text})
        return rows


def about(run: str | Path) -> str:
    """A run in a few words: "tiny, 2.66 M parameters, bytes"."""
    described = RunFolder(Path(run)).description()
    count = sum(part.total for part in parts(ModelConfig(**described["model"])))
    return f"{described['preset']}, {si(count)} parameters, {described['train']['tokenizer']}"


_opened = lru_cache(maxsize=1)(Trained)
