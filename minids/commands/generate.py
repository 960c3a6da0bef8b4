"""minids generate: text from a trained model."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from minids.checkpoint.model_folder import load
from minids.checkpoint.streaming import load_streamed
from minids.checkpoint.tokenizer import Tokenizer
from minids.errors import refuse
from minids.inference.generate import generate_batch, prompt_ids, stream
from minids.inference.infill import infill_ids
from minids.inference.sampling import MIN_P, TEMPERATURE, Token
from minids.inference.speculative import Counts
from minids.terminal import quoted, say


@dataclass(frozen=True)
class Options:
    """Continue a text with a trained model."""

    checkpoint: str
    """A run's folder, or any Hugging Face DeepSeek folder."""
    prompt: Annotated[tuple[str, ...], "each"] = ()
    """Text to continue; without one a new document is begun. Several, each after a --prompt of its own, are written side by
    side, which shares the reading of the weights; text i with the seed --seed + i."""
    prompt_file: Annotated[tuple[str, ...], "each"] = ()
    """Or a file with such a text; - reads standard input."""
    num_samples: int = 1
    """Texts to write of each prompt."""
    suffix: str = ""
    """Text that comes after: what lies between is filled in, by a model trained with --fim-rate."""
    max_new_tokens: int = 200
    """Tokens to write."""
    temperature: float = TEMPERATURE
    """0 always takes the most likely token; 1 draws from the model's own distribution. How tokens are drawn is said by the
    folder's generation_config.json where it has one; what is typed counts before it."""
    top_k: int = 0
    """Draw among the k most likely tokens only; 0 for all."""
    top_p: float = 1.0
    """Draw among the fewest tokens that together have this probability."""
    min_p: float = MIN_P
    """Draw among the tokens that are at least so many times as likely as the likeliest; 0 for all."""
    repetition_penalty: float = 1.0
    """Divide the logits of tokens that the text has already by this, and multiply negative ones; 1 to leave them alone."""
    stop: Annotated[tuple[str, ...], "each"] = ()
    """End with the token that completes this text. A text also ends with the model's own end tokens."""
    seed: int = 0
    """Seed of the draws."""
    cache: Literal["latent", "full", "none"] | None = None
    """What is kept of the tokens read: the latent (default for MLA), all keys and values, or nothing."""
    speculative: bool = False
    """Have the MTP modules guess tokens that the model then checks in one pass: in fewer passes the same text at temperature 0,
    and another draw from the same distribution above it."""
    draft_tokens: int = 0
    """Tokens guessed per pass with --speculative; 0 for as many as there are MTP modules."""
    confidence: float = 0.0
    """With --speculative: guess no further where the module is less sure than this; 0 to always guess."""
    log_probabilities: bool = False
    """List every token with its log-probability after the text."""
    extend: float | None = None
    """Stretch the context to so many times the length that the model was trained with, by YaRN, without further training."""
    trained_length: int = 0
    """With --extend: that length in tokens; 0 for the context length of the run, or what config.json says."""
    stream: bool = False
    """Leave the weights on disk and read each layer when it is needed, for models larger than memory."""
    mtp: bool = True
    """Open the MTP modules too; without them a folder opens that has them only in part."""
    allow_nonfinite: bool = False
    """Open a folder with a NaN or an infinity in a weight or routing bias, to study it."""

    def __post_init__(self) -> None:
        if self.draft_tokens < 0:
            raise refuse("draft_tokens", self.draft_tokens, "must be at least 1, or 0 for one per MTP module")
        if self.num_samples < 1:
            raise refuse("num_samples", self.num_samples, "must be at least 1")


def run(options: Options, given: set[str]) -> None:
    prompts = (*options.prompt, *map(_read, options.prompt_file)) or ("",)
    prompts = tuple(prompt for prompt in prompts for _ in range(options.num_samples))
    for name in given & {"draft_tokens", "confidence"}:
        if not options.speculative:
            raise refuse(name, getattr(options, name), "concerns --speculative; say that too")
    if len(prompts) > 1:
        for name in given & {"speculative", "log_probabilities", "suffix"}:
            raise refuse(
                name,
                getattr(options, name),
                f"concerns one text, and there are {len(prompts)}; give one --prompt, and one sample of it",
            )
    for name, left_out in (("stream", options.stream), ("mtp", not options.mtp)):
        if left_out and options.speculative:
            raise refuse(name, getattr(options, name), "leaves the MTP modules out, so there is nothing to guess with")
    read = load_streamed if options.stream else partial(load, mtp=options.mtp)
    opened = {name: getattr(options, name) for name in ("extend", "trained_length", "allow_nonfinite")}
    model = read(options.checkpoint, **opened)
    if model.tokenizer is None:
        raise refuse("checkpoint", options.checkpoint, "has no tokenizer.json, so there is no text to read or write")
    bos, tokenizer = model.config.bos_token_id, model.tokenizer
    texts = [prompt_ids(model, prompt) for prompt in prompts]
    texts = [[bos, *ids] if prompt and bos is not None else ids for prompt, ids in zip(prompts, texts, strict=True)]
    if "suffix" in given:
        texts = [infill_ids(model, prompts[0], options.suffix)]
    prompts = tuple(tokenizer.decode(tokenizer.encode(p)) if tokenizer.unknown(p) else p for p in prompts)  # as it was read
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "cache")
    settings = {name: getattr(options, name) for name in names} | {"stop": [*model.generation.stop, *options.stop]}
    settings |= {name: value for name, value in model.generation.settings().items() if name not in given}
    if len(prompts) > 1:
        for prompt, new in zip(prompts, generate_batch(model, texts, **settings), strict=True):
            say(f"--- {quoted(prompt)}\n{prompt}{model.tokenizer.decode(new)}\n")
        return
    counts = Counts()
    if options.speculative:
        settings |= {"speculative": True, "draft_tokens": options.draft_tokens or None, "counts": counts}
        settings["confidence"] = options.confidence
    _show(model.tokenizer, prompts[0], stream(model, texts[0], **settings), options.log_probabilities, options.suffix)
    if counts.passes:
        judged = enumerate(zip(counts.acceptance, counts.submitted, strict=True), start=1)
        depths = ", ".join(f"guess {depth}: {100 * share:.0f} % of {n}" for depth, (share, n) in judged if n)
        say(f"\nspeculation: {counts.tokens_per_pass:.2f} tokens a pass; stood: {depths or 'nothing was guessed'}")


def _read(path: str) -> str:
    """The text of a file, or of standard input. One line break at its end is the editor's."""
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise refuse("prompt_file", path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise refuse("prompt_file", path, f"is not UTF-8 text (byte {error.start})") from None
    except ValueError as error:  # a NUL in the name
        raise refuse("prompt_file", path, f"cannot be read: {error}") from None
    return text.removesuffix("\n").removesuffix("\r")


def _show(tokenizer: Tokenizer, prompt: str, tokens: Iterator[Token], log_probabilities: bool, suffix: str) -> None:
    table = ["", "log p (nats)  token"]

    def ids() -> Iterator[int]:
        for token in tokens:
            if log_probabilities:
                guessed = "  guessed" if token.drafted else ""
                table.append(f"{token.log_probability:12.4f}  {quoted(tokenizer.decode([token.id]))}{guessed}")
            yield token.id

    say(prompt, end="")
    for piece in tokenizer.decode_stream(ids()):
        say(piece, end="")
    say(suffix)
    if log_probabilities:
        say("\n".join(table))
