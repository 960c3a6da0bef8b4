"""Decoding: generation side by side with the peer, and what each kind of cache costs as the context grows.

Four questions, a table each:

    generation   one text, greedy, 384 new tokens, prompt included: tokens/s by every way of decoding, and the peer's
    context      one further token behind C cached ones. Caches are filled with noise: time does not depend on what is in them
    batch        one further token of each of several sequences, absorbed
    many at once where absorption loses: S new tokens behind a context. It does more work per pair of tokens and expands
                 nothing; expanding costs once for all S. Arithmetic puts the point where both need the same number of
                 operations at S = d_c (d_nope + d_v) / (2 d_c − d_nope − d_v)

"absorbed" is the compiled step, "absorbed, layers" the same mathematics operation by operation, as "naive" and "full" are.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from minids import words
from minids.backend import backend_name
from minids.errors import MinidsError
from minids.inference.decoder import Decoder
from minids.inference.generate import generate
from minids.lab.analysis.flops import absorption_pays_until
from minids.lab.bench import peers
from minids.lab.bench.sizes import SIZES
from minids.lab.bench.timing import alternate, median, ratio
from minids.layers.parameters import Array
from minids.model import DeepSeekV3
from minids.processor import cores
from minids.terminal import say

Say = Callable[[str], None]
NEW_TOKENS, PROMPT = 384, 16
CONTEXTS = (64, 256, 1024, 4096, 8192, 16384)
LONGEST_WITHOUT_CACHE = 1024  # beyond, reading everything again for each token takes seconds, and says nothing new
BATCHES, BATCH_CONTEXT = (1, 2, 4, 8, 16), 256
AT_ONCE, AT_ONCE_CONTEXT = (1, 4, 16, 64, 256, 1024), 2048
PARTS = ("generation", "context", "batch", "at-once")
MODES = ("none", "full", "naive", "absorbed, layers", "absorbed")


def run(
    sizes: tuple[str, ...], rounds: int, threads: int, against: str | None, parts: tuple[str, ...] = PARTS, say: Say = say
) -> dict:
    """Measure the models that ``sizes`` name (A-… and B-…; batches do not matter here) → what ``table`` prints of ``parts``."""
    threads = threads or cores()
    if against == "torch-compiled":
        raise MinidsError("against = 'torch-compiled': the peer's generate is not compiled; say --against torch")
    if against:
        peers.require_torch()
    models = {name[0]: SIZES[name].config for name in sizes}
    found = {"threads": threads, "backend": backend_name(), "new_tokens": NEW_TOKENS, "models": {}}
    with threadpool_limits(threads, user_api="blas"):
        for name, config in models.items():
            model, until = DeepSeekV3(config, 0), absorption_pays_until(config)
            measure = {"context": by_context, "batch": by_batch, "at-once": many_at_once}
            measure["generation"] = lambda model, rounds: generation(model, rounds, threads, against)
            found["models"][name] = {"absorption_pays_until": until if math.isfinite(until) else None}
            for part in (part for part in PARTS if part in parts):
                say(f"{name}: {part}")
                found["models"][name][part] = measure[part](model, rounds)
    return found


def generation(model: DeepSeekV3, rounds: int, threads: int, against: str | None, new_tokens: int = NEW_TOKENS) -> dict:
    """Name → tokens per second of one whole generation, and how many times as fast as the others it is."""
    prompt = 1 + np.arange(PROMPT) % (model.config.vocab_size - 1)
    calls: dict[str, Callable] = {
        "absorbed": lambda: generate(model, prompt, new_tokens),
        "full": lambda: generate(model, prompt, new_tokens, cache="full"),
    }
    if against == "torch":
        calls["torch"] = torch_generation(model, prompt, new_tokens, threads)
    texts = {name: np.asarray(call()).tolist() for name, call in calls.items()}  # compiles, too
    seconds = alternate(calls, rounds, warm_up=0)
    return {
        name: {
            "tokens_per_second": new_tokens / median(times),
            "times_as_fast_as": {other: ratio(seconds, name, other) for other in seconds if other != name},
            "same_text_as_absorbed": _common_start(texts[name], texts["absorbed"]) / new_tokens,
        }
        for name, times in seconds.items()
    }


def torch_generation(model: DeepSeekV3, prompt: Array, new_tokens: int, threads: int) -> Callable[[], Array]:
    """The peer's own greedy generation with its own cache, on the same weights and prompt."""
    import torch

    torch.set_num_threads(threads)
    peer = peers.as_transformers(model).eval()
    ids = torch.tensor(prompt)[None]
    asked = dict(max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False, pad_token_id=0)

    def call() -> Array:
        with torch.inference_mode():
            return peer.generate(ids, attention_mask=torch.ones_like(ids), **asked)[0, len(prompt) :].numpy()

    return call


def by_context(model: DeepSeekV3, rounds: int, contexts: tuple[int, ...] = CONTEXTS) -> list[dict]:
    """Of each context and mode: tokens per second, bytes of the cache, and times as fast as naive."""
    rows = []
    for context in contexts:
        calls, nbytes = {}, {}
        for mode in MODES:
            if mode != "none":
                calls[mode], nbytes[mode] = _one_more(model, mode, context)
            elif context <= LONGEST_WITHOUT_CACHE:
                everything = np.ones((1, context + 1), np.int64)
                calls[mode], nbytes[mode] = partial(model.logits, everything), 0
        seconds = alternate(calls, rounds)
        for mode, times in seconds.items():
            row = {"context": context, "mode": mode, "tokens_per_second": 1 / median(times), "cache_bytes": nbytes[mode]}
            rows.append(row | {"times_as_fast_as": {o: ratio(seconds, mode, o) for o in seconds if o != mode}})
    return rows


def by_batch(model: DeepSeekV3, rounds: int, batches: tuple[int, ...] = BATCHES) -> list[dict]:
    """Of each batch: tokens per second of all sequences together, and bytes of their caches."""
    rows = []
    calls = {batch: _one_more(model, "absorbed", BATCH_CONTEXT, batch) for batch in batches}
    seconds = alternate({batch: call for batch, (call, _) in calls.items()}, rounds)
    for batch, times in seconds.items():
        rows.append({"batch": batch, "tokens_per_second": batch / median(times), "cache_bytes": calls[batch][1]})
    return rows


def many_at_once(model: DeepSeekV3, rounds: int, counts: tuple[int, ...] = AT_ONCE) -> list[dict]:
    """Of each number of new tokens behind a context: milliseconds naive and absorbed, both through the layers."""
    rows = []
    for count in counts:
        calls = {mode: _one_more(model, mode, AT_ONCE_CONTEXT, new=count)[0] for mode in ("naive", "absorbed, layers")}
        seconds = alternate(calls, rounds)
        naive, absorbed = (1e3 * median(times) for times in seconds.values())
        faster = ratio(seconds, "absorbed, layers", "naive")
        rows.append({"new_tokens": count, "naive_ms": naive, "absorbed_ms": absorbed, "absorbed_times_as_fast": faster})
    return rows


def filled(decoder: Decoder, context: int, room: int = 1) -> Decoder:
    """The decoder with noise in its cache in the place of ``context`` tokens of every sequence, and room for more."""
    rng = np.random.default_rng(0)
    decoder.cache.reserve(context + room)
    for array in decoder.cache.arrays:
        array[:, :, :context] = rng.standard_normal((context, *array.shape[3:]), dtype=np.float32)  # one layer's for all: fast
    decoder.cache.advance(context)
    return decoder


def _one_more(model: DeepSeekV3, mode: str, context: int, batch: int = 1, new: int = 1) -> tuple[Callable, int]:
    """A call that reads ``new`` tokens behind ``context`` and forgets them again, and the bytes of the cache without them."""
    cache, compiled = "full" if mode == "full" else "latent", False if mode == "absorbed, layers" else None
    decoder = filled(Decoder(model, cache, batch, mode != "naive", compiled), context, new)
    tokens, nbytes = np.ones((batch, new), np.int64), decoder.cache.nbytes
    model.rotary(context + new)

    def call() -> Array:
        logits = decoder.logits(decoder.read(tokens)[:, -1])
        decoder.rewind(context)
        return logits

    return call, nbytes


def _common_start(a: list[int], b: list[int]) -> int:
    """How many tokens two texts begin with alike. Sums in another order decide near ties another way, and then all differs."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))


def table(found: dict) -> str:
    """What ``run`` found, for a terminal."""
    lines = [
        f"Decoding with the {found['backend']} backend, batch 1 if not said otherwise; medians of calls that took turns.",
        f"BLAS and the peer on {found['threads']} threads; the compiled step runs on one.",
    ]
    shown = dict(zip(PARTS, (_generation, _contexts, _batches, _at_once), strict=True))
    for name, model in found["models"].items():
        for part in (part for part in PARTS if part in model):
            heading, *rest = shown[part](model, found)
            lines += ["", f"{name}: {heading}", *rest]
    return "\n".join(lines)


def _generation(model: dict, found: dict) -> list[str]:
    """tokens/s of every way, against the peer where it took part."""
    ways, rows = model["generation"], []
    peer = "torch" if "torch" in ways else "full"
    for way, row in ways.items():
        times = row["times_as_fast_as"].get(peer)
        same = f"the first {row['same_text_as_absorbed']:.0%} of the text the same" if way != "absorbed" else ""
        note = f"{times:.1f} times as fast as {peer}" if times else ""
        rows.append((way, f"{row['tokens_per_second']:,.0f}", ", ".join(filter(None, (note, same)))))
    return [f"greedy, {found['new_tokens']} new tokens", words.table(rows, ("", "tokens/s"), "lrl")]


def _batches(model: dict, found: dict) -> list[str]:
    rows = [(r["batch"], f"{r['tokens_per_second']:,.0f}", f"{r['cache_bytes'] / 1e6:.2f}") for r in model["batch"]]
    heading = f"sequences at once, {BATCH_CONTEXT} cached tokens each, absorbed"
    return [heading, words.table(rows, ("batch", "tokens/s", "cache MB"), "r")]


def _at_once(model: dict, found: dict) -> list[str]:
    """Milliseconds both ways by the number of new tokens, and where arithmetic puts the crossing."""
    until, rows = model["absorption_pays_until"], []
    for r in model["at-once"]:
        faster = f"{r['absorbed_times_as_fast']:.2f} times as fast"
        rows.append((r["new_tokens"], f"{r['naive_ms']:.1f}", f"{r['absorbed_ms']:.1f}", faster))
    never = "with 2 d_c ≤ d_nope + d_v absorption never needs more operations"
    return [
        f"new tokens at once behind {AT_ONCE_CONTEXT}, through the layers: where absorption loses",
        words.table(rows, ("tokens", "naive ms", "absorbed", "absorbed is"), "r"),
        f"equal numbers of operations at {until:.0f} tokens" if until else never,
    ]


def _contexts(model: dict, found: dict) -> list[str]:
    """tokens/s by mode, one line per context; then where absorption begins to win."""
    by_context: dict[int, dict[str, dict]] = {}
    for row in model["context"]:
        by_context.setdefault(row["context"], {})[row["mode"]] = row
    rows = []
    for context, modes in by_context.items():
        speeds = (f"{modes[m]['tokens_per_second']:,.0f}" if m in modes else "—" for m in MODES)
        rows.append((context, *speeds, *(f"{modes[m]['cache_bytes'] / 1e6:.2f}" for m in ("full", "absorbed"))))
    shown = words.table(rows, ("context", *MODES, "full MB", "latent MB"), "r")
    against = [f"absorbed, layers, against {other}: {_crossover(by_context, other)}" for other in ("naive", "full")]
    return ["tokens/s behind a context, and megabytes of cache", shown, *against]


def _crossover(by_context: dict[int, dict[str, dict]], other: str) -> str:
    times = {c: modes["absorbed, layers"]["times_as_fast_as"][other] for c, modes in by_context.items()}
    said = ", ".join(f"{t:.2f} at {c}" for c, t in times.items())
    wins = [c for c, t in times.items() if t > 1]
    losses = [c for c, t in times.items() if t <= 1]
    where = "wins everywhere" if not losses else f"loses at {', '.join(map(str, losses))}"
    return f"{where if wins else 'loses everywhere'} (times as fast: {said})"
