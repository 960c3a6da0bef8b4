"""minids generate: text from a trained model."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from minids.checkpoint.model_folder import load
from minids.checkpoint.streaming import load_streamed
from minids.checkpoint.tokenizer import Tokenizer
from minids.errors import refuse
from minids.inference.generate import generate_batch, prompt_ids, stream
from minids.inference.sampling import MIN_P, TEMPERATURE, Token
from minids.inference.speculative import Counts


@dataclass(frozen=True)
class Options:
    """Continue a text with a trained model."""

    checkpoint: str
    """A run's folder, or any Hugging Face DeepSeek folder."""
    prompt: Annotated[tuple[str, ...], "each"] = ()
    """Text to continue; without one a new document is begun. Several, each after a --prompt of its own, are written side by
    side, which shares the reading of the weights; text i with the seed --seed + i."""
    max_new_tokens: int = 200
    """Tokens to write."""
    temperature: float = TEMPERATURE
    """0 always takes the most likely token; 1 draws from the model's own distribution."""
    top_k: int = 0
    """Draw among the k most likely tokens only; 0 for all."""
    top_p: float = 1.0
    """Draw among the fewest tokens that together have this probability."""
    min_p: float = MIN_P
    """Draw among the tokens that are at least so many times as likely as the likeliest; 0 for all."""
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

    def __post_init__(self) -> None:
        if self.draft_tokens < 0:
            raise refuse("draft_tokens", self.draft_tokens, "must be at least 1, or 0 for one per MTP module")


def run(options: Options, given: set[str]) -> None:
    prompts = options.prompt or ("",)
    for name in given & {"draft_tokens", "confidence"}:
        if not options.speculative:
            raise refuse(name, getattr(options, name), "concerns --speculative; say that too")
    if len(prompts) > 1:
        for name in given & {"speculative", "log_probabilities"}:
            raise refuse(name, getattr(options, name), f"concerns one text, and there are {len(prompts)}; give one --prompt")
    if options.stream and options.speculative:
        raise refuse("stream", True, "leaves the MTP modules out, so there is nothing to guess with")
    read = load_streamed if options.stream else load
    model = read(options.checkpoint, extend=options.extend, trained_length=options.trained_length)
    if model.tokenizer is None:
        raise refuse("checkpoint", options.checkpoint, "has no tokenizer.json, so there is no text to read or write")
    bos, eos = model.config.bos_token_id, model.config.eos_token_id
    texts = [prompt_ids(model, prompt) for prompt in prompts]
    texts = [[bos, *ids] if prompt and bos is not None else ids for prompt, ids in zip(prompts, texts, strict=True)]
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "seed", "cache")
    settings = {name: getattr(options, name) for name in names} | {"stop": [] if eos is None else [eos]}
    if len(prompts) > 1:
        for prompt, new in zip(prompts, generate_batch(model, texts, **settings), strict=True):
            print(f"--- {prompt!r}\n{prompt}{model.tokenizer.decode(new)}\n")
        return
    counts = Counts()
    if options.speculative:
        settings |= {"speculative": True, "draft_tokens": options.draft_tokens or None, "counts": counts}
        settings["confidence"] = options.confidence
    _show(model.tokenizer, prompts[0], stream(model, texts[0], **settings), options.log_probabilities)
    if counts.passes:
        judged = enumerate(zip(counts.acceptance, counts.submitted, strict=True), start=1)
        depths = ", ".join(f"guess {depth}: {100 * share:.0f} % of {n}" for depth, (share, n) in judged if n)
        print(f"\nspeculation: {counts.tokens_per_pass:.2f} tokens a pass; stood: {depths or 'nothing was guessed'}")


def _show(tokenizer: Tokenizer, prompt: str, tokens: Iterator[Token], log_probabilities: bool) -> None:
    print(prompt, end="", flush=True)
    shown, ids, table = "", [], ["", "log p (nats)  token"]
    for token in tokens:
        ids.append(token.id)
        text = tokenizer.decode(ids)
        if not text.endswith("�"):  # the rest of a character may be still to come
            print(text[len(shown) :], end="", flush=True)
            shown = text
        if log_probabilities:
            guessed = "  guessed" if token.drafted else ""
            table.append(f"{token.log_probability:12.4f}  {tokenizer.decode([token.id])!r}{guessed}")
    print(tokenizer.decode(ids)[len(shown) :])
    if log_probabilities:
        print("\n".join(table))
