"""minids data: what there is to train on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from minids.errors import refuse
from minids.terminal import columns, fit, say
from minids.words import table

if TYPE_CHECKING:
    from minids.training.corpus import Corpus


@dataclass(frozen=True)
class Options:
    """List what there is to train on, or fetch a data set."""

    action: Annotated[Literal["list", "show", "fetch"], "positional"] = "list"
    """list shows the built-in corpus and what can be fetched; show PATH what a file or folder of yours gives, with every file
    that is passed over and why; fetch NAME fetches a data set once into the user's cache."""
    name: Annotated[str, "positional"] = ""
    """Data set to fetch, or file or folder to show."""


def run(options: Options, given: set[str]) -> None:
    from minids.training.corpus import load_corpus
    from minids.training.download import DATASETS, fetch

    if options.action == "fetch":
        if not options.name:
            raise refuse("name", options.name, "which one? minids data list shows them")
        say(fetch(options.name))
        return
    if options.action == "show":
        if not options.name:
            raise refuse("name", options.name, "which file or folder? minids data show PATH")
        corpus = load_corpus([options.name])
        say(describe(replace(corpus, skipped=())))
        if corpus.skipped:
            say("\npassed over:\n" + table(corpus.skipped, align="l", width=columns()))
        return
    if options.name:
        raise refuse("name", options.name, "list shows everything; fetch NAME fetches one of them, show PATH what a path gives")
    say(describe(load_corpus(["builtin"])))
    for dataset in DATASETS.values():
        say(fit(str(dataset)))


def describe(corpus: Corpus) -> str:
    """A table of the domains: documents, bytes, and how the first document begins."""
    rows = []
    for domain in corpus.domains:
        documents = corpus.of(domain)
        start = " ".join(documents[0].text[:400].decode("utf-8", "ignore").split())[:60]
        rows.append((domain, f"{len(documents):,}", f"{sum(document.size for document in documents):,}", start))
    shown = table(rows, head=("domain", "documents", "bytes", "begins with"), align="lrrl", width=columns())
    return f"{shown}\n{corpus.passed_over()}" if corpus.skipped else shown
