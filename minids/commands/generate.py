"""minids generate: text from a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from minids.errors import refuse


@dataclass(frozen=True)
class Options:
    """Continue a text with a trained model."""

    checkpoint: str
    """A run's folder, or any Hugging Face DeepSeek folder."""
    prompt: str = ""
    """Text to continue; if empty, a new document is begun."""
    max_new_tokens: int = 200
    """Tokens to write."""
    temperature: float = 0.7
    """0 always takes the most likely token; 1 draws from the model's own distribution."""
    top_k: int = 0
    """Draw among the k most likely tokens only; 0 for all."""
    top_p: float = 0.95
    """Draw among the fewest tokens that together have this probability."""
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
    threads: int = 1
    """With --speculative: 2 lets the tokens of a pass go through the model side by side, 1 one after the other, which was the
    faster where it was measured; 0 for 2 where there are two cores."""
    compare: bool = False
    """Write the text twice, with guesses and without, and say how fast either was and how many guesses stood."""
    log_probabilities: bool = False
    """List every token with its log-probability after the text."""
    extend: float | None = None
    """Stretch the context to so many times the length that the model was trained with, by YaRN, without further training."""
    trained_length: int = 0
    """With --extend: that length in tokens; 0 for the context length of the run, or what config.json says."""
    stream: bool = False
    """Leave the weights on disk and read each layer when it is needed, for models larger than memory."""

    def __post_init__(self):
        if self.threads < 0:
            raise refuse("threads", self.threads, "must be at least 1, or 0 for one per core")
        if self.draft_tokens < 0:
            raise refuse("draft_tokens", self.draft_tokens, "must be at least 1, or 0 for one per MTP module")


def run(options: Options, given: set[str]) -> None:
    from minids.checkpoint.model_folder import load
    from minids.checkpoint.streaming import load_streamed
    from minids.inference.generate import prompt_ids, tokens
    from minids.inference.speculative import Counts

    speculative = options.speculative or options.compare
    for name in given & {"draft_tokens", "confidence", "threads"}:
        if not speculative:
            raise refuse(name, getattr(options, name), "concerns --speculative or --compare; say one of them too")
    if options.stream and speculative:
        raise refuse("stream", True, "leaves the MTP modules out, so there is nothing to guess with")
    model = (load_streamed if options.stream else load)(
        options.checkpoint, extend=options.extend, trained_length=options.trained_length
    )
    if model.tokenizer is None:
        raise refuse("checkpoint", options.checkpoint, "has no tokenizer.json, so there is no text to read or write")
    ids = prompt_ids(model, options.prompt)
    if options.prompt and model.config.bos_token_id is not None:
        ids = [model.config.bos_token_id, *ids]  # as in training: a document begins with it

    def steps(speculative: bool, counts: Counts):
        return tokens(
            model,
            ids,
            options.max_new_tokens,
            options.temperature,
            options.top_k,
            options.top_p,
            options.seed,
            options.cache,
            () if model.config.eos_token_id is None else (model.config.eos_token_id,),
            speculative,
            options.draft_tokens or None if speculative else None,
            options.confidence if speculative else 0.0,
            options.log_probabilities,
            counts=counts,
            threads=options.threads,
        )

    counts = Counts()
    new = _written(model.tokenizer, options.prompt, steps(speculative, counts))
    if options.log_probabilities:
        print("\nlog p (nats)  token")
        for token in new:
            print(
                f"{token.log_probability:12.4f}  {model.tokenizer.decode([token.id])!r}{'  guessed' if token.drafted else ''}"
            )
    if speculative:
        _account(counts)
    if options.compare:
        _compare(steps, options.temperature)


def _written(tokenizer, prompt: str, steps) -> list:
    """Print text as it comes; its tokens."""
    print(prompt, end="", flush=True)
    shown, new, ids = "", [], []
    for token in steps:
        new.append(token)
        ids.append(token.id)
        text = tokenizer.decode(ids)
        if not text.endswith("�"):  # the rest of a character may be still to come
            print(text[len(shown) :], end="", flush=True)
            shown = text
    print(tokenizer.decode(ids)[len(shown) :])
    return new


def _account(counts) -> None:
    """How many guesses stood."""
    if not counts.passes:
        return
    depths = ", ".join(
        f"guess {depth}: {100 * share:.0f} % of {n}"
        for depth, (share, n) in enumerate(zip(counts.acceptance, counts.submitted, strict=True), start=1)
        if n
    )
    print(f"\nspeculation: {counts.tokens_per_pass:.2f} tokens a pass; stood: {depths or 'nothing was guessed'}")


def _compare(steps, temperature: float) -> None:
    """Time both ways, three times by turns; the first tokens, which wait for the prompt, are not counted."""
    import time
    from statistics import median

    from minids.inference.speculative import Counts

    speeds, texts = {True: [], False: []}, {}
    for _ in range(3):
        for speculative in (True, False):
            running = steps(speculative, Counts())
            written = [next(running, None)]
            began = time.perf_counter()
            written += running
            speeds[speculative].append((len(written) - 1) / (time.perf_counter() - began))
            texts[speculative] = [token.id for token in written if token is not None]
    if any(0 in rates for rates in speeds.values()):
        print("one token or none was written: no speeds to compare")
        return
    ratio = median(a / b for a, b in zip(speeds[True], speeds[False], strict=True))
    print(f"tokens/s: {median(speeds[True]):,.0f} with guesses, {median(speeds[False]):,.0f} without: {ratio:.2f} times")
    if temperature == 0:
        print("the two texts are " + ("the same, token for token" if texts[True] == texts[False] else "NOT the same"))
    else:
        print("the two texts are different draws from the same distribution (with --temperature 0 they are the same)")
