"""Pictures for talks, drawn from numbers this package computed: one function each, one style, light and dark.

    minids.lab.figures.kv_cache_per_token(models={"mine": config}, theme="dark").savefig("cache.svg")

Every name of ``PICTURES`` is such a function: its own arguments choose the numbers, those of ``picture.Look`` the shape, the
letters, the language and the colours, ``ax`` draws into a picture of your own, and the matplotlib Figure is returned.
``minids figures`` writes them all; ``thumbnails()`` shows them in a notebook; ``register(picture)`` adds one of yours.
"""

import importlib

_HOMES = {
    "architecture": "overview",
    "mla": "latent",
    "kv_cache_per_token": "cache",
    "cache_against_context": "cache",
    "absorption": "absorbed",
    "one_card": "cache",
    "rope_and_yarn": "positions",
    "rank_of_keys_and_values": "latent",
    "one_token_routed": "token",
    "tokens_and_experts": "routing",
    "expert_load_in_training": "balance",
    "wall_of_experts": "wall",
    "experts_by_domain": "routing",
    "nodes_and_traffic": "nodes",
    "mtp_chain": "mtp",
    "guesses_accepted": "speculation",
    "fp8_numbers": "fp8",
    "where_parameters_sit": "sizes",
    "training_cost": "sizes",
    "all_to_all": "nodes",
    "pipeline_schedules": "pipelines",
    "training_run": "training",
    "attention_family": "family",
    "cache_and_quality": "family",
    "drafts": "speculation",
    "specialisation": "routing",
    "v3_timeline": "training",
    "needles": "positions",
    "grpo": "policy",
}
"""Name of a picture → the module it lives in (never one of the same name, which would hide it), in the order of the talk."""

PICTURES = [*_HOMES]
_registered: dict = {}

__all__ = ["PICTURES", "register", "thumbnails", *_HOMES]


def register(picture):
    """Add a ``picture.Picture`` of your own to the set, and so to ``minids figures --also FILE.py``; returns it. One of its
    name takes its place."""
    others = [getattr(importlib.import_module(__name__), name) for name in PICTURES if name != picture.name]
    if any(other.number == picture.number for other in others):
        from minids.errors import refuse

        free = 1 + max(other.number for other in others)
        raise refuse("number", picture.number, f"is another figure's; {free} is free")
    if picture.name not in PICTURES:
        PICTURES.append(picture.name)
    _registered[picture.name] = picture
    return picture


def thumbnails(*names: str, out: str = "figures"):
    """All pictures, or those of these names or numbers, with caption and small image, from the folder of ``minids figures``."""
    from minids.lab.figures.collection import found
    from minids.lab.figures.thumbnail import Thumbnails

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
