"""A corpus as a model sees it: a tokenizer, training text as one stream of tokens, and a held-out stream for each domain."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from minids.checkpoint.tokenizer import FIM, Tokenizer, byte_tokenizer, character_tokenizer, train_bpe
from minids.config import TrainConfig
from minids.errors import refuse
from minids.training.batches import Layout, TokenStream
from minids.training.corpus import Corpus
from minids.training.fill_in_the_middle import Encode, FillInTheMiddle
from minids.training.token_boundaries import SplitJoined

_LAYOUT = 41  # beside the seed: what is drawn for the layout is drawn apart from all else


@dataclass(frozen=True)
class Text:
    tokenizer: Tokenizer
    training: TokenStream
    held_out: dict[str, TokenStream]  # domain → text kept for validation

    @classmethod
    def encode(cls, training: Corpus, held_out: Corpus, tokenizer: Tokenizer, layout: Layout | None = None) -> Text:
        """The two halves of a corpus in tokens; ``layout``: of the training half. Held-out documents come in the order of their
        hashes: a validation pass that reads only some of the text should not read the first files alone."""
        streams = {}
        for domain in held_out.domains:
            streams[domain] = TokenStream.encode(sorted(held_out.of(domain), key=lambda d: d.digest), tokenizer)
            if (n := len(streams[domain])) < 2:
                raise refuse("data", domain, f"its held-out text has {n} tokens, and two are the least; give more text of it")
        return cls(tokenizer, TokenStream.encode(training.documents, tokenizer, layout), streams)


def layout_for(train: TrainConfig, tokenizer: Tokenizer) -> Layout | None:
    """How a run lays out its training documents; None: as they stand. What is drawn depends on the seed alone, so that a
    resumed run has the same text."""
    rng = np.random.default_rng([train.seed, _LAYOUT])
    encode: Encode = tokenizer.encode
    if train.line_token_split_rate:
        encode = SplitJoined(tokenizer, train.line_token_split_rate, rng)
    if train.fim_rate:
        if tokenizer.fim is None:
            raise refuse("fim_rate", train.fim_rate, f"the tokenizer has no tokens {', '.join(FIM)}")
        return FillInTheMiddle(encode, tokenizer.fim, train.fim_rate, train.context_length, rng)
    return (lambda text: [encode(text)]) if train.line_token_split_rate else None


def tokenizer_for(
    training: Corpus, kind: str, bpe_vocab_size: int = TrainConfig.bpe_vocab_size, fim: bool = False, line_tokens: bool = False
) -> Tokenizer:
    """The tokenizer that ``TrainConfig.tokenizer`` names, learned from the training half where it has to be; with ``fim``, that
    has the tokens of fill-in-the-middle among its ``bpe_vocab_size``. ``line_tokens``: as for ``train_bpe``."""
    texts = (document.text for document in training.documents)
    if kind == "bpe":
        found = train_bpe(texts, bpe_vocab_size - len(FIM) * fim, line_tokens)
    else:
        found = character_tokenizer(texts) if kind == "chars" else byte_tokenizer()
    return found.with_fim() if fim else found


def readable_prompt(tokenizer: Tokenizer, texts: Iterable[str]) -> str:
    """A short prompt for a command line that a model with this tokenizer reads whole: a common one, or else the beginning of
    one of ``texts``; "" if there is none."""
    for text in ("def ", "The ", *texts):
        plain = re.match(r"[^\W_][\w ,.]{0,15}", text.lstrip())  # nothing that a shell would read as something else
        if plain and not tokenizer.unknown(plain[0]):
            return plain[0]
    return ""


def held_out_prompt(held_out: Corpus, domain: str, length: int = 48) -> str:
    """The first words of the first paragraph after the middle of the domain's first held-out document. What a document begins
    with, a title or a licence, says less of its kind than what stands in it."""
    text = held_out.of(domain)[0].text.decode("utf-8", errors="replace")
    paragraph = re.search(r"\n\s*\n(?=[ \t]*\S)", text[len(text) // 2 :])
    text = text[len(text) // 2 + paragraph.end() :] if paragraph else text.lstrip()
    cut = text[:length]
    return cut if len(text) <= length else cut[: max(cut.rfind(" "), cut.rfind("\n")) + 1].rstrip() or cut
