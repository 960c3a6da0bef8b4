"""minids route: which expert each token is sent to."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from minids.checkpoint.extension import run_setting
from minids.checkpoint.latest import resolved
from minids.checkpoint.model_folder import load
from minids.checkpoint.streaming import load_streamed
from minids.checkpoint.tokenizer import Tokenizer, encoded
from minids.errors import MinidsError, refuse
from minids.files import write
from minids.lab.analysis import placement, routing
from minids.lab.analysis.routing_trace import RoutingTrace, trace
from minids.lab.figures.style import need_matplotlib
from minids.model import DeepSeekV3
from minids.terminal import coloured, fit, name_of, say
from minids.words import table


@dataclass(frozen=True)
class Options:
    """Colour every token of a text by its expert, and measure how experts are loaded and what they specialise on."""

    checkpoint: str
    """A run's folder, or any Hugging Face DeepSeek folder."""
    text: str = ""
    """Text to show, token by token."""
    data: tuple[str, ...] = ()
    """Or text to measure: builtin, shakespeare, or files and folders, each one domain. What was kept for validation is read:
    the share that the model's own run kept, or a tenth."""
    layer: int = -1
    """Block whose experts are shown; -1 is the last one with experts."""
    html: str = ""
    """Web page to write: buttons for the layers, experts and gates of the token pointed at."""
    png: str = ""
    """Picture to write."""
    tokens: int = 8192
    """Tokens of each domain that --data reads, at most."""
    gpus: int = 0
    """With --data: how even the load of so many GPUs is that each hold an equal part of the experts and one more, a copy of a
    busy one or of the shared expert, which counts as one more routed one (V3, section 3.4)."""
    stream: bool = False
    """Leave the weights on disk and read each layer when it is needed, for models larger than memory."""
    allow_nonfinite: bool = False
    """Open a folder with a NaN or an infinity in a weight or routing bias, to study it."""


def run(options: Options, given: set[str]) -> None:
    if not options.text and not options.data:
        raise MinidsError("route: give --text TEXT to show it, or --data builtin to measure by domain")
    if options.gpus and not options.data:
        raise refuse("gpus", options.gpus, "is about the load that --data measures, which is not given")
    if options.gpus < 0:
        raise refuse("gpus", options.gpus, "must be at least 1")
    if options.tokens < 1:
        raise refuse("tokens", options.tokens, "must be at least 1")
    for field, path in (("html", options.html), ("png", options.png)):
        if path and not options.text:
            raise refuse(field, path, "is a picture of --text, which is not given")
        if path and Path(path).is_dir():
            raise refuse(field, path, "is a folder; name a file in it")
        if path and not Path(path).absolute().parent.is_dir():
            raise refuse(field, path, "its folder is not there; make it first")
    if options.png:
        need_matplotlib()  # before the work
    # Without its MTP modules, which show nothing here: a folder that has them only in part will do.
    read = load_streamed if options.stream else partial(load, mtp=False)
    model = read(options.checkpoint, allow_nonfinite=options.allow_nonfinite)
    if model.tokenizer is None:
        raise refuse("checkpoint", options.checkpoint, "has no tokenizer.json, so there is no text to read")
    if not any(model.config.is_moe(layer) for layer in range(model.config.num_hidden_layers)):
        raise refuse("checkpoint", options.checkpoint, "has no experts to choose from")
    if options.text:
        _show(model, model.tokenizer, options)
    if options.data:
        _measure(model, model.tokenizer, options)


def _show(model: DeepSeekV3, tokenizer: Tokenizer, options: Options) -> None:
    """One text, token by token."""
    from minids.lab.figures import routed_text

    config = model.config
    begin = [] if config.bos_token_id is None else [config.bos_token_id]  # as in training: a document begins with it
    ids = np.array([[*begin, *encoded(tokenizer, options.text, "text")]])
    if ids.size > config.max_position_embeddings:
        because = f"has {ids.size} tokens; this model reads at most {config.max_position_embeddings}"
        raise refuse("text", options.text[:20] + "…", because)
    found = trace(model, ids)
    layer = routed_text.layer_of(found, options.layer)
    shown = routed_text.pieces(ids[0], tokenizer)
    painted = coloured()
    say(f"{layer.name}: each token and its expert with the largest gate\n")
    say(routed_text.in_terminal(found, shown, layer, painted), painted=painted)
    say(f"\nexpert and load relative to the mean\n{routed_text.legend(found, layer, painted)}\n", painted=painted)
    say(_layers(found))
    title = f"Experts of {name_of(Path(options.checkpoint).name)}"
    if options.html:
        write(Path(options.html), routed_text.as_html(found, shown, title).encode())
        say(f"Page: {Path(options.html)}")
    if options.png:
        write(Path(options.png), routed_text.as_png(found, shown, layer, title))
        say(f"Picture: {Path(options.png)}")


def _measure(model: DeepSeekV3, tokenizer: Tokenizer, options: Options) -> None:
    """Held-out text of several domains: who is loaded with what, and what a limit on nodes saves."""
    from minids.lab.analysis.traffic import of_model
    from minids.training.batches import TokenStream
    from minids.training.corpus import load_corpus

    c, length = model.config, min(256, model.config.max_position_embeddings)
    if options.tokens < length:
        raise refuse("tokens", options.tokens, f"one sequence has {length} tokens; give at least as many")
    corpus = load_corpus(list(options.data))
    if corpus.skipped:
        say(corpus.passed_over())
    _, held_out = corpus.split(run_setting(resolved(options.checkpoint), "validation_share", 0.1) or 0.1)
    rows, labels = [], []
    for index, name in enumerate(held_out.domains):
        ids = TokenStream.encode(held_out.of(name), tokenizer).tokens[: options.tokens + 1].astype(np.int32)
        windows = (len(ids) - 1) // length
        if not windows:
            raise refuse("data", name, f"has only {len(ids)} tokens to read; {length + 1} make one sequence")
        rows.append(np.lib.stride_tricks.sliding_window_view(ids, length + 1)[: windows * length : length])
        labels += [index] * windows
    text, domain = np.concatenate(rows), np.array(labels)  # (sequences, length + 1), (sequences,)
    found = trace(model, text[:, :-1], held_out.domains, np.repeat(domain[:, None], length, axis=1))
    say(f"{text[:, :-1].size:,} tokens in sequences of {length}: {', '.join(held_out.domains)}\n\n{_layers(found)}")
    if len(held_out.domains) > 1:
        say(f"Busiest experts of each domain, load relative to the mean\n{_busiest(found)}")
        test = routing.specialisation_test(found.counts_by_sequence(), domain)
        say(
            f"\nAn expert tells {test.statistic:.3f} bits of the domain; by chance {test.chance:.3f} "
            f"(sequences shuffled among domains, p = {test.p_value:.3g})"
        )
    if options.gpus:
        shown = _placed(found, options.gpus, c.num_experts_per_tok, c.n_shared_experts > 0)
        say(f"\n{options.gpus} GPUs: load of the busiest over the mean\n{shown}")
    if c.n_group > 1 and c.topk_method != "greedy":
        say(fit(f"\nNodes a token may use, of {c.n_group} (trained with {c.topk_group}): per token and layer"))
        some = text[np.linspace(0, len(text) - 1, min(32, len(text))).astype(int)]  # of all domains
        cells = []
        for at in of_model(model, some[:, :-1], some[:, 1:]):
            sent = f"{at.traffic.dispatch_bytes:.0f} + {at.traffic.combine_bytes:.0f}"
            cells.append((at.limit, f"{at.traffic.nodes:.2f}", sent, f"{at.loss:.4f}"))
        say(fit(table(cells, ("limit", "nodes used", "dispatch + combine, bytes", "loss, nats per token"))))


def _busiest(found: RoutingTrace) -> str:
    """Per layer and domain the four experts with the most tokens."""
    counts = routing.relative_load(routing.domain_counts(found))  # (D, layers, E)
    loads = [(layer.name, name, counts[d, i]) for i, layer in enumerate(found.layers) for d, name in enumerate(found.domains)]
    return table([(*of, ", ".join(f"{e} ({load[e]:.2f})" for e in np.argsort(-load)[:4])) for *of, load in loads], align="l")


def _placed(found: RoutingTrace, gpus: int, chosen: int, shared: bool) -> str:
    """Per layer: experts dealt out in blocks, with one spare place each, and with the shared expert as one more routed one."""
    rows, head = [], ("layer", "as dealt out", "a spare place each", "the shared one too", "copies of it")
    for layer, counts in zip(found.layers, found.counts(), strict=True):
        each = len(counts) // gpus + 1
        row = [layer.name, placement.plain(counts, gpus).imbalance, placement.placed(counts, gpus, each).imbalance]
        if shared:
            ninth = placement.placed(placement.with_shared(counts, chosen), gpus, each)
            row += [ninth.imbalance, int(ninth.copies[-1])]
        rows.append([f"{cell:.3f}" if isinstance(cell, float) else cell for cell in row])
    return table(rows, head[: len(rows[0])])


def _layers(found: RoutingTrace) -> str:
    """Per layer how evenly experts are loaded."""
    rows = [
        (at.name, f"{at.max_violation:.3f}", f"{at.entropy:.3f}", f"{at.nodes:.2f}")
        + (() if at.specialisation is None else (f"{at.specialisation:.3f}",))
        for at in routing.statistics(found)
    ]
    head = ("layer", "MaxVio", "entropy of load", "nodes per token", "bits of domain")
    return f"{table(rows, head[: len(rows[0])])}\nDropped tokens: {routing.dropped(found)}\n"
