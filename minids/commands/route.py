"""minids route: which expert each token is sent to."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minids.errors import MinidsError, refuse


@dataclass(frozen=True)
class Options:
    """Colour every token of a text by its expert, and measure how experts are loaded and what they specialise on."""

    checkpoint: str
    """A run's folder, or any Hugging Face DeepSeek folder."""
    text: str = ""
    """Text to show, token by token."""
    data: tuple[str, ...] = ()
    """Or text to measure: builtin, shakespeare, or files and folders, each one domain. What was kept for validation is read:
    the share that the model's own run kept, else a tenth."""
    layer: int = -1
    """Block whose experts are shown; -1 is the last one with experts."""
    html: str = ""
    """Web page to write: buttons for the layers, experts and gates of the token pointed at."""
    png: str = ""
    """Picture to write."""
    tokens: int = 8192
    """Tokens of each domain that --data reads, at most."""
    stream: bool = False
    """Leave the weights on disk and read each layer when it is needed, for models larger than memory."""


def run(options: Options, given: set[str]) -> None:
    from minids.checkpoint.model_folder import load
    from minids.checkpoint.streaming import load_streamed

    if not options.text and not options.data:
        raise MinidsError("route: give --text TEXT to show it, or --data builtin to measure by domain")
    if (options.html or options.png) and not options.text:
        raise refuse(
            "html" if options.html else "png", options.html or options.png, "is a picture of --text, which is not given"
        )
    if options.tokens < 1:
        raise refuse("tokens", options.tokens, "must be at least 1")
    for field in ("html", "png"):
        path = getattr(options, field)
        if path and Path(path).is_dir():
            raise refuse(field, path, "is a folder; name a file in it")
        if path and not Path(path).absolute().parent.is_dir():
            raise refuse(field, path, "its folder is not there; make it first")
    model = (load_streamed if options.stream else load)(options.checkpoint)
    if model.tokenizer is None:
        raise refuse("checkpoint", options.checkpoint, "has no tokenizer.json, so there is no text to read")
    if not any(model.config.is_moe(layer) for layer in range(model.config.num_hidden_layers)):
        raise refuse("checkpoint", options.checkpoint, "has no experts to choose from")
    if options.text:
        _show(model, options)
    if options.data:
        _measure(model, options)


def _show(model, options: Options) -> None:
    """One text, token by token."""
    from minids.lab.analysis.routing_trace import trace
    from minids.lab.figures import routed_text
    from minids.lab.figures.style import write_bytes

    config, tokenizer = model.config, model.tokenizer
    begin = [] if config.bos_token_id is None else [config.bos_token_id]  # as in training: a document begins with it
    ids = np.array([[*begin, *tokenizer.encode(options.text)]])
    if ids.size > config.max_position_embeddings:
        most = config.max_position_embeddings
        raise refuse("text", options.text[:20] + "…", f"has {ids.size} tokens; this model reads at most {most}")
    found = trace(model, ids)
    layer = routed_text.layer_of(found, options.layer)
    shown = routed_text.pieces(ids[0], tokenizer)
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(f"{layer.name}: each token and its expert with the largest gate\n")
    print(routed_text.in_terminal(found, shown, layer, coloured))
    print(f"\nexpert and load relative to the mean\n{routed_text.legend(found, layer, coloured)}\n")
    _print_layers(found)
    title = f"Experts of {Path(options.checkpoint).name}"
    if options.html:
        print(f"Page: {write_bytes(Path(options.html), routed_text.as_html(found, shown, title).encode())}")
    if options.png:
        print(f"Picture: {write_bytes(Path(options.png), routed_text.as_png(found, shown, layer, title))}")


def _measure(model, options: Options) -> None:
    """Held-out text of several domains: who is loaded with what, and what a limit on nodes saves."""
    from minids.checkpoint.extension import run_setting
    from minids.checkpoint.latest import resolved
    from minids.lab.analysis.routing import domain_counts, relative_load, specialisation_test
    from minids.lab.analysis.routing_trace import trace
    from minids.lab.analysis.traffic import of_model
    from minids.training.batches import TokenStream
    from minids.training.corpus import load_corpus

    length = min(256, model.config.max_position_embeddings)
    if options.tokens < length:
        raise refuse("tokens", options.tokens, f"one sequence has {length} tokens; give at least as many")
    corpus = load_corpus(list(options.data))
    if corpus.skipped:
        print(corpus.passed_over())
    _, held_out = corpus.split(run_setting(resolved(options.checkpoint), "validation_share", 0.1))
    rows, labels = [], []
    for index, domain in enumerate(held_out.domains):
        ids = TokenStream.encode(held_out.of(domain), model.tokenizer).tokens[: options.tokens + 1].astype(np.int32)
        windows = (len(ids) - 1) // length
        if not windows:
            raise refuse("data", domain, f"has only {len(ids)} tokens to read; {length + 1} make one sequence")
        rows.append(np.lib.stride_tricks.sliding_window_view(ids, length + 1)[: windows * length : length])
        labels += [index] * windows
    text, labels = np.concatenate(rows), np.array(labels)
    tokens, targets = text[:, :-1], text[:, 1:]
    domain = np.repeat(labels[:, None], length, axis=1)
    found = trace(model, tokens, held_out.domains, domain)
    print(f"{tokens.size:,} tokens in sequences of {length}: {', '.join(held_out.domains)}\n")
    _print_layers(found)
    if len(held_out.domains) > 1:
        print("Busiest experts of each domain, load relative to the mean")
        counts = relative_load(domain_counts(found))  # (D, layers, E)
        wide = max(14, *(len(name) + 2 for name in held_out.domains))
        for i, layer in enumerate(found.layers):
            for name, load in zip(held_out.domains, counts[:, i], strict=True):
                best = ", ".join(f"{e} ({load[e]:.2f})" for e in np.argsort(-load)[:4])
                print(f"  {layer.name:<20}{name:<{wide}}{best}")
        test = specialisation_test(found.counts_by_sequence(), labels)
        print(
            f"\nAn expert tells {test.statistic:.3f} bits of the domain; by chance {test.chance:.3f} "
            f"(sequences shuffled among domains, p = {test.p_value:.3g})"
        )
    if model.config.n_group > 1 and model.config.topk_method != "greedy":
        c = model.config
        print(f"\nNodes a token may use, of {c.n_group} (trained with {c.topk_group}): per token and layer")
        print("  limit   nodes used   dispatch + combine, bytes   loss, nats per token")
        some = np.linspace(0, len(tokens) - 1, min(32, len(tokens))).astype(int)  # of all domains
        for at in of_model(model, tokens[some], targets[some]):
            t = at.traffic
            print(f"  {at.limit:<8}{t.nodes:<13.2f}{t.dispatch_bytes:.0f} + {t.combine_bytes:.0f}{'':<16}{at.loss:.4f}")


def _print_layers(found) -> None:
    from minids.lab.analysis.routing import dropped, statistics

    print(
        "layer               MaxVio  entropy of load  nodes per token" + ("  bits of domain" if len(found.domains) > 1 else "")
    )
    for at in statistics(found):
        line = f"{at.name:<20}{at.max_violation:<8.3f}{at.entropy:<17.3f}{at.nodes:<15.2f}"
        print(line + (f"  {at.specialisation:.3f}" if at.specialisation is not None else ""))
    print(f"Dropped tokens: {dropped(found)}\n")
