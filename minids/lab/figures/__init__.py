"""Pictures for talks, drawn from numbers this package computed: one function each, one style, light and dark.

    minids.lab.figures.kv_cache_per_token(models={"mine": config}, theme="dark").savefig("cache.svg")

Every name of ``PICTURES`` is such a function: its own arguments choose the numbers, those of ``picture.Look`` the shape, the
letters, the language and the colours, ``ax`` draws into a picture of your own, and the matplotlib Figure is returned.
``minids figures`` writes them all; ``thumbnails()`` shows them in a notebook; ``register(picture)`` adds one of yours.
"""

import importlib

from minids.errors import refuse

_MODULES = {  # each with its pictures, never one of its own name, which it would hide
    "overview": "architecture",
    "latent": "mla absorption rank_of_keys_and_values",
    "cache": "kv_cache_per_token cache_against_context one_card",
    "positions": "rope_and_yarn needles",
    "token": "one_token_routed",
    "routing": "tokens_and_experts expert_load_in_training experts_by_domain specialisation",
    "nodes": "wall_of_experts nodes_and_traffic all_to_all",
    "speculation": "mtp_chain guesses_accepted drafts",
    "fp8": "fp8_numbers",
    "sizes": "where_parameters_sit training_cost",
    "pipelines": "pipeline_schedules",
    "training": "training_run v3_timeline",
    "family": "attention_family cache_and_quality",
    "policy": "grpo",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

PICTURES = [*_HOMES]
_registered: dict = {}

__all__ = ["PICTURES", "register", "thumbnails", *_HOMES]


def register(picture):
    """Add a ``picture.Picture`` of your own to the set, and so to ``minids figures --also FILE.py``; returns it. One of its
    name takes its place."""
    others = [getattr(importlib.import_module(__name__), name) for name in PICTURES if name != picture.name]
    if picture.number in (taken := [other.number for other in others]):
        raise refuse("number", picture.number, f"is another figure's; {1 + max(taken)} is free")
    if picture.name not in PICTURES:
        PICTURES.append(picture.name)
    _registered[picture.name] = picture
    return picture


def thumbnails(*names: str, out: str = "figures"):
    """All pictures, or those of these names or numbers, with caption and small image, from the folder of ``minids figures``."""
    from minids.lab.figures.collection import Thumbnails, found

    return Thumbnails(found(names), out)


def __getattr__(name: str):
    """Import a picture's module when it is asked for: ``import minids`` stays quick."""
    if name in _registered:
        return _registered[name]
    if name in _HOMES:
        return getattr(importlib.import_module(f"minids.lab.figures.{_HOMES[name]}"), name)
    raise AttributeError(f"minids.lab.figures has no {name!r}; it has {', '.join(PICTURES)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *PICTURES])
