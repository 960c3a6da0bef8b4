"""Speculation on a trained model: how many guesses stand on each domain of its held-out text, and what they are worth.

Passages of held-out text are continued greedily: token by token, then with guesses on one thread, then with guesses whose
verification runs on two. The ways take turns in one process, so that a busy minute is everyone's. The first token of a text,
which waits for the prompt to be read, is not timed. Token by token there is one thread: a token has nothing to run beside.

Beside it the parts: milliseconds of one and of two tokens' way through model and head, and of a guess. Where a step without
guesses costs s, a guess g and a verification v, guesses of which a share p stands are worth (1 + p) s / (g + v). With weights
read in the place of milliseconds this is what the model's shape allows where a step is as long as what it reads: two tokens
meet nearly twice as many experts as one, and the module reads the head once more.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from minids.checkpoint.latest import latest_checkpoint
from minids.checkpoint.model_folder import load
from minids.config import ModelConfig
from minids.errors import refuse
from minids.inference.by_two import by_two
from minids.inference.cache import FullCache, LatentCache
from minids.inference.decode import logits_of, read, read_mtp
from minids.inference.generate import tokens
from minids.inference.speculative import Counts, passages
from minids.lab.analysis.flops import weights_read
from minids.lab.bench.timing import alternate, median
from minids.layers.parameters import Array
from minids.model import DeepSeekV3
from minids.processor import cores
from minids.training.corpus import load_corpus
from minids.training.run_folder import RunFolder

PROMPT, NEW_TOKENS, PROMPTS = 64, 128, 3
PLAIN, ONE, TWO = "without", "1 thread", "2 threads"


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
    two = (threads or cores()) > 1
    return {
        "threads": 2 if two else 1,
        "prompts": PROMPTS,
        "new_tokens": NEW_TOKENS,
        "domains": {name: on_domain(model, documents, rounds, two) for name, documents in texts.items()},
        "weights": weights(model.config),
        "milliseconds": parts(model, next(iter(texts.values())), rounds, two),
    }


def on_domain(
    model: DeepSeekV3, documents: list[Array], rounds: int, two: bool, new_tokens: int = NEW_TOKENS, prompts: int = PROMPTS
) -> dict:
    """Acceptance, tokens a pass, tokens/s of every way, how many times as fast as without guesses, and whether texts agree."""
    ways = {PLAIN: dict(), ONE: dict(speculative=True, threads=1)} | ({TWO: dict(speculative=True, threads=2)} if two else {})
    starts = [p.tolist() for p in passages(documents, prompts, PROMPT)]
    speeds, texts, counts = {way: [] for way in ways}, {}, Counts()
    for turn in range(1 + rounds):  # the first compiles and does not count
        for way, options in ways.items():
            seconds, texts[way] = 0.0, []
            for start in starts:
                counted = Counts()
                running = tokens(model, start, new_tokens, counts=counted, **options)
                texts[way].append(next(running).id)
                began = time.perf_counter()
                texts[way] += [token.id for token in running]
                seconds += time.perf_counter() - began
                if turn == 0 and way == ONE:
                    counts.merge(counted)
            if turn:
                speeds[way].append(prompts * (new_tokens - 1) / seconds)
    return {
        "acceptance": counts.acceptance,
        "tokens_per_pass": counts.tokens_per_pass,
        "tokens_per_second": {way: median(found) for way, found in speeds.items()},
        "times_as_fast": {
            way: median(a / b for a, b in zip(found, speeds[PLAIN], strict=True))
            for way, found in speeds.items()
            if way != PLAIN
        },
        "same_text": all(text == texts[PLAIN] for text in texts.values()),
    }


def weights(config: ModelConfig) -> dict[str, float]:
    """Read by a step, by a verification of two tokens, and by a guess after a pass that gave one token and two."""
    read = {"1 token": weights_read(config, 1), "2 tokens": weights_read(config, 2)}
    return read | {f"guess after {given}": weights_read(config, given, mtp=True) for given in (1, 2)}


def allowed(tokens_per_pass: float, read: dict[str, float]) -> float:
    """Times as fast as without guesses, were time what is read."""
    stood = tokens_per_pass - 1
    guess = (1 - stood) * read["guess after 1"] + stood * read["guess after 2"]
    return tokens_per_pass * read["1 token"] / (read["2 tokens"] + guess)


def parts(model: DeepSeekV3, documents: list[Array], rounds: int, two: bool, context: int = 2 * PROMPT) -> dict[str, float]:
    """Milliseconds behind a context: a step, a verification of two tokens, and a guess after one token and after two."""
    text = np.resize(np.concatenate(documents), 2 * context).astype(np.int64)
    kind = LatentCache if model.config.attention == "mla" else FullCache
    cache, mtp_cache = kind(model.config, 1, model.dtype), kind(model.config, 1, model.dtype, 1)
    hidden = read(model, text[None, :context], cache)[0]
    read_mtp(model, 1, text[1 : context + 1], hidden, mtp_cache)
    places = iter(range(1 << 62))  # other tokens at every call, which choose other experts, as in a text

    def new(count: int) -> Array:
        start = context + next(places) % (context - 2)
        return text[start : start + count]

    def step(count: int):
        logits_of(model, read(model, new(count)[None], cache)[0], cache)
        cache.rewind(context)

    def guess(count: int, two: bool):
        if pair:
            pair.guess(new(count), hidden[:count], two)
        else:
            logits_of(model, read_mtp(model, 1, new(count), hidden[:count], mtp_cache, wanted=count - 1), mtp_cache)
        mtp_cache.rewind(context)

    def by_both():
        pair.verify(new(2).tolist(), True)
        cache.rewind(context)

    calls = {"1 token": lambda: step(1), "2 tokens": lambda: step(2)}
    calls |= {"guess after 1": lambda: guess(1, False), "guess after 2": lambda: guess(2, False)}
    pair = by_two(model, cache, mtp_cache, 1)
    if pair and two:
        calls["2 tokens, 2 threads"] = by_both
        calls["guess after 1, 2 threads"] = lambda: guess(1, True)
        calls["guess after 2, 2 threads"] = lambda: guess(2, True)
    try:
        found = alternate(calls, 20 * rounds)
    finally:
        if pair:
            pair.close()
    return {name: 1e3 * median(seconds) for name, seconds in found.items()}


def table(found: dict) -> str:
    """What ``run`` found, for a terminal."""
    ways = list(next(iter(found["domains"].values()))["tokens_per_second"])
    lines = [
        f"Speculation, greedy: {found['prompts']} passages of held-out text a domain, {found['new_tokens']} new tokens each.",
        "Medians of ways that took turns; without guesses there is one thread, as a token has nothing to run beside.",
        "",
        f"{'':<14}{'guesses':>9}{'tokens':>9}   "
        + "".join(f"{'tokens/s':>12}" for _ in ways)
        + f"   {'times as fast':<22}text",
        f"{'domain':<14}{'stood':>9}{'a pass':>9}   " + "".join(f"{way:>12}" for way in ways),
    ]
    for name, row in found["domains"].items():
        stood = "/".join(f"{share:.0%}" for share in row["acceptance"]) or "—"
        speeds = "".join(f"{row['tokens_per_second'][way]:>12,.0f}" for way in ways)
        times = ", ".join(f"{value:.2f}" for value in row["times_as_fast"].values())
        same = "the same" if row["same_text"] else "NOT THE SAME"
        lines.append(f"{name:<14}{stood:>9}{row['tokens_per_pass']:>9.2f}   {speeds}   {times:<22}{same}")
    read = found["weights"]
    told = ", ".join(f"{name} {allowed(row['tokens_per_pass'], read):.2f}" for name, row in found["domains"].items())
    lines += [
        "",
        "Weights read: " + ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in read.items()) + ".",
        f"If time were what is read: {told} times as fast; if every guess stood, {allowed(2, read):.2f}.",
        "",
        "milliseconds, head included:",
    ]
    return "\n".join(lines + [f"  {name:<26}{value:>8.3f}" for name, value in found["milliseconds"].items()])
