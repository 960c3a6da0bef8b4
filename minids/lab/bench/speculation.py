"""Speculation on a trained model: how many guesses stand on each domain of its held-out text, and what they are worth.

Passages of held-out text are continued greedily, token by token and with guesses. The two take turns in one process, so that a
busy minute is both's. The first token of a text, which waits for the prompt to be read, is not timed.

Beside it the parts: milliseconds of one and of two tokens' way through model and head, and of a guess. Where a step without
guesses costs s, a guess g and a verification v, guesses of which a share p stands are worth (1 + p) s / (g + v). With weights
read in the place of milliseconds this is what the model's shape allows where a step is as long as what it reads: two tokens
meet nearly twice as many experts as one, and the module reads the head once more.
"""

import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from minids import words
from minids.checkpoint.latest import latest_checkpoint
from minids.checkpoint.model_folder import load
from minids.config import ModelConfig
from minids.errors import refuse
from minids.inference.decoder import Decoder
from minids.inference.generate import stream
from minids.inference.speculative import Counts
from minids.lab.analysis.flops import weights_read
from minids.lab.bench.timing import alternate, median
from minids.layers.parameters import Array
from minids.model import DeepSeekV3
from minids.processor import cores
from minids.training.corpus import load_corpus
from minids.training.run_folder import RunFolder

PROMPT, NEW_TOKENS, PROMPTS = 64, 128, 3
PLAIN, GUESSED = "without", "with guesses"


def run(checkpoint: str, rounds: int, threads: int) -> dict:
    """Measure the model of a run's folder on the text that was held out of its training → what ``table`` prints."""
    if latest_checkpoint(checkpoint) is None:
        raise refuse("checkpoint", checkpoint, "holds no run; its text is needed too, so give a folder that minids train wrote")
    model = load(checkpoint)
    if not model.mtp:
        raise refuse("checkpoint", checkpoint, "its model has no MTP module to guess with (num_nextn_predict_layers = 0)")
    described = RunFolder(Path(checkpoint)).description()
    held_out = load_corpus(described["data"]).split(described["train"]["validation_share"])[1]
    texts = {name: [model.tokenizer.encode(d.text) for d in held_out.of(name)] for name in held_out.domains}
    with threadpool_limits(threads or cores(), user_api="blas"):
        domains = {name: on_domain(model, documents, rounds) for name, documents in texts.items()}
        milliseconds = parts(model, next(iter(texts.values())), rounds)
    return {
        "prompts": PROMPTS,
        "new_tokens": NEW_TOKENS,
        "domains": domains,
        "weights": weights(model.config),
        "milliseconds": milliseconds,
    }


def on_domain(
    model: DeepSeekV3, documents: list[Array], rounds: int, new_tokens: int = NEW_TOKENS, prompts: int = PROMPTS
) -> dict:
    """Acceptance, tokens a pass, tokens/s both ways, how many times as fast as without guesses, and whether texts agree."""
    starts = [p.tolist() for p in passages(documents, prompts, PROMPT)]
    speeds: dict[str, list[float]] = {PLAIN: [], GUESSED: []}
    texts, counts = {}, Counts()
    for turn in range(1 + rounds):  # the first compiles and does not count
        for way in speeds:
            seconds, texts[way] = 0.0, []
            for start in starts:
                guesses = dict(speculative=True, counts=counts if turn == 0 else None) if way == GUESSED else {}
                tokens = stream(model, start, new_tokens, **guesses)
                texts[way].append(next(tokens).id)
                began = time.perf_counter()
                texts[way] += [token.id for token in tokens]
                seconds += time.perf_counter() - began
            if turn:
                speeds[way].append(prompts * (new_tokens - 1) / seconds)
    return {
        "acceptance": counts.acceptance,
        "tokens_per_pass": counts.tokens_per_pass,
        "tokens_per_second": {way: median(found) for way, found in speeds.items()},
        "times_as_fast": median(a / b for a, b in zip(speeds[GUESSED], speeds[PLAIN], strict=True)),
        "same_text": texts[GUESSED] == texts[PLAIN],
    }


def passages(documents: list[Array], count: int, length: int) -> list[Array]:
    """``count`` passages of ``length`` tokens (less where there are fewer), evenly spread over the documents."""
    whole = np.concatenate(documents)
    last = max(len(whole) - length, 0)
    return [whole[start : start + length] for start in np.linspace(0, last, count).astype(int)]


def weights(config: ModelConfig) -> dict[str, float]:
    """Read by a step, by a verification of two tokens, and by a guess after a pass that gave one token and two."""
    read = {"1 token": weights_read(config, 1), "2 tokens": weights_read(config, 2)}
    return read | {f"guess after {given}": weights_read(config, given, mtp=True) for given in (1, 2)}


def allowed(tokens_per_pass: float, read: dict[str, float]) -> float:
    """Times as fast as without guesses, were time what is read."""
    stood = tokens_per_pass - 1
    guess = (1 - stood) * read["guess after 1"] + stood * read["guess after 2"]
    return tokens_per_pass * read["1 token"] / (read["2 tokens"] + guess)


def parts(model: DeepSeekV3, documents: list[Array], rounds: int, context: int = 2 * PROMPT) -> dict[str, float]:
    """Milliseconds behind a context: a step, a verification of two tokens, and a guess after one token and after two."""
    text = np.resize(np.concatenate(documents), 2 * context).astype(np.int64)
    decoder = Decoder(model)
    hidden = decoder.read(text[None, :context])[0]
    decoder.read_mtp(1, text[1 : context + 1], hidden)
    places = iter(range(1 << 62))  # other tokens at every call, which choose other experts, as in a text

    def new(count: int) -> Array:
        start = context + next(places) % (context - 2)
        return text[start : start + count]

    def step(count: int) -> None:
        decoder.logits(decoder.read(new(count)[None])[0])
        decoder.rewind(context)

    def guess(count: int) -> None:
        decoder.mtp_logits(1, decoder.read_mtp(1, new(count), hidden[:count], skip=count - 1))
        decoder.mtp_caches[0].rewind(context)

    calls = {"1 token": lambda: step(1), "2 tokens": lambda: step(2)}
    calls |= {"guess after 1": lambda: guess(1), "guess after 2": lambda: guess(2)}
    return {name: 1e3 * median(seconds) for name, seconds in alternate(calls, 20 * rounds).items()}


def table(found: dict) -> str:
    """What ``run`` found, for a terminal."""
    lines = [
        f"Speculation, greedy: {found['prompts']} passages of held-out text a domain, {found['new_tokens']} new tokens each.",
        "Medians of ways that took turns.",
    ]
    rows = []
    for name, row in found["domains"].items():
        stood = "/".join(f"{share:.0%}" for share in row["acceptance"]) or "—"
        speeds = [f"{row['tokens_per_second'][way]:,.0f}" for way in (PLAIN, GUESSED)]
        same = "the same" if row["same_text"] else "NOT THE SAME"
        rows.append((name, stood, f"{row['tokens_per_pass']:.2f}", *speeds, f"{row['times_as_fast']:.2f}", same))
    head = ("domain", "guesses stood", "tokens a pass", f"tokens/s {PLAIN}", GUESSED, "times as fast", "text")
    read = found["weights"]
    by_domain = ", ".join(f"{name} {allowed(row['tokens_per_pass'], read):.2f}" for name, row in found["domains"].items())
    lines += [
        "",
        words.table(rows, head, "lrrrrrl"),
        "",
        "Weights read: " + ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in read.items()) + ".",
        f"If time were what is read: {by_domain} times as fast; if every guess stood, {allowed(2, read):.2f}.",
        "",
        "milliseconds, head included:",
        words.table((name, f"{value:.3f}") for name, value in found["milliseconds"].items()),
    ]
    return "\n".join(lines)
