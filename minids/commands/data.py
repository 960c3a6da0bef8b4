"""minids data: what there is to train on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

from minids.errors import refuse


@dataclass(frozen=True)
class Options:
    """List what there is to train on, or fetch a data set."""

    action: tyro.conf.Positional[Literal["list", "fetch"]] = "list"
    """list shows the built-in corpus and what can be fetched; fetch NAME fetches it once into the user's cache."""
    name: tyro.conf.Positional[str] = ""
    """Data set to fetch."""


def run(options: Options, given: set[str]) -> None:
    from minids.training.corpus import describe, load_corpus
    from minids.training.download import DATASETS, fetch

    if options.action == "fetch":
        if not options.name:
            raise refuse("name", options.name, "which one? minids data list shows them")
        print(fetch(options.name))
        return
    if options.name:
        raise refuse("name", options.name, "list shows everything; fetch NAME fetches one of them")
    print(describe(load_corpus(["builtin"])))
    for dataset in DATASETS.values():
        print(dataset)
