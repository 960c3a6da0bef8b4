"""A checkpoint's tokenizer as the page's own one understands it: plain lists, and a refusal where it would read otherwise."""

import json
from typing import Any

from minids.checkpoint.tokenizer import CHARACTER_OF_BYTE, Tokenizer
from minids.errors import refuse

GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What the tokenizers library cuts by in its ByteLevel step (Radford et al. 2019)."""
_NOT_IN_JAVASCRIPT = ("(?i:", "(?>", "++", "*+", "?+", "&&", "[[:", r"\A", r"\z", r"\h", r"\G")


def described(tokenizer: Tokenizer) -> dict[str, Any]:
    """pieces (id → spelling in byte characters, None for specials), specials (id → name), cuts (patterns), merges, whole_words
    (a word that is a token is taken as such), bos, eos (ids or None)."""
    spec = json.loads(tokenizer.backend.to_str())
    model = spec["model"]
    if model.get("type") != "BPE" or model.get("dropout") or model.get("continuing_subword_prefix"):
        raise refuse("tokenizer", model.get("type"), "the page knows byte-level BPE without dropout or prefixes")
    if spec.get("normalizer") not in (None, {"type": "Sequence", "normalizers": []}):
        raise refuse("tokenizer.normalizer", spec["normalizer"].get("type"), "the page changes no letter before it cuts a text")
    added = {token["id"]: token for token in spec.get("added_tokens") or []}
    pieces: list[str | None] = [None] * tokenizer.vocab_size
    for spelling, number in model["vocab"].items():
        if number not in added:
            pieces[number] = spelling
    for number, token in added.items():
        if not token["special"]:  # a word that was added later: its text is its own
            pieces[number] = "".join(CHARACTER_OF_BYTE[byte] for byte in token["content"].encode())
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    return {
        "pieces": pieces,
        "specials": {str(number): token["content"] for number, token in added.items() if token["special"]},
        "cuts": _cuts(spec.get("pre_tokenizer")),
        "merges": [" ".join(pair) for pair in pairs],
        "whole_words": bool(model.get("ignore_merges")),
        "bos": tokenizer.bos_id,
        "eos": tokenizer.eos_id,
    }


def _cuts(step: dict[str, Any] | None) -> list[str]:
    """The patterns by which a text is cut, one after the other."""
    if step is None:
        return []
    kind = step["type"]
    if kind == "Sequence":
        return [cut for inner in step["pretokenizers"] for cut in _cuts(inner)]
    if kind == "Digits":
        return [r"\p{N}" if step["individual_digits"] else r"\p{N}+"]
    if kind == "ByteLevel" and not step["add_prefix_space"]:
        return [GPT2_WORDS] if step.get("use_regex", True) else []
    if kind == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
        pattern = step["pattern"].get("Regex")
        if pattern is not None and not any(part in pattern for part in _NOT_IN_JAVASCRIPT):
            return [pattern]
    raise refuse("tokenizer.pre_tokenizer", kind, "the page cuts by Digits, ByteLevel and Split with a plain pattern only")
