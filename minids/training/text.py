"""A corpus as a model sees it: a tokenizer, training text as one stream of tokens, and a held-out stream for each domain."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from minids.checkpoint.tokenizer import Tokenizer, byte_tokenizer, character_tokenizer, train_bpe
from minids.config import TrainConfig
from minids.errors import refuse
from minids.training.batches import TokenStream
from minids.training.corpus import Corpus


@dataclass(frozen=True)
class Text:
    tokenizer: Tokenizer
    training: TokenStream
    held_out: dict[str, TokenStream]  # domain → text kept for validation

    @classmethod
    def encode(cls, training: Corpus, held_out: Corpus, tokenizer: Tokenizer) -> Text:
        """The two halves of a corpus in tokens. Held-out documents come in the order of their hashes: a validation pass that
        reads only some of the text should not read the first files alone."""
        streams = {}
        for domain in held_out.domains:
            streams[domain] = TokenStream.encode(sorted(held_out.of(domain), key=lambda d: d.digest), tokenizer)
            if (n := len(streams[domain])) < 2:
                raise refuse("data", domain, f"its held-out text has {n} tokens, and two are the least; give more text of it")
        return cls(tokenizer, TokenStream.encode(training.documents, tokenizer), streams)


def tokenizer_for(training: Corpus, kind: str, bpe_vocab_size: int = TrainConfig.bpe_vocab_size) -> Tokenizer:
    """The tokenizer that ``TrainConfig.tokenizer`` names, learned from the training half where it has to be."""
    texts = (document.text for document in training.documents)
    if kind == "bpe":
        return train_bpe(texts, bpe_vocab_size)
    return character_tokenizer(texts) if kind == "chars" else byte_tokenizer()


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
