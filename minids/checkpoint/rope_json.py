"""RoPE and YaRN in ``config.json``: two spellings read, both written.

    old    "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 40, …}          DeepSeek's releases
    new    "rope_parameters": {"rope_theta": 10000, "rope_type": "yarn", "factor": 40, …}  transformers 5

cos and sin are multiplied by m(s, mscale) / m(s, mscale_all_dim), where m(s, a) = 0.1 · a · ln s + 1 (DeepSeek-V2 report,
section 3.1.4). DeepSeek's code takes a missing mscale for 1 and a missing mscale_all_dim for 0; transformers ignores both
unless both are given and not 0, and lets ``attention_factor`` overrule them. Where they disagree, transformers is followed.
"""

from __future__ import annotations

import dataclasses
import math

from minids.checkpoint.values import LIMIT, printable, real, scalar
from minids.config import Yarn
from minids.errors import refuse


def rope_from_json(json: dict, max_position_embeddings: object) -> tuple[float, Yarn | None]:
    """(rope_theta, YaRN or None) of a file. Where it has both spellings the old one counts, as in transformers.

    ``max_position_embeddings`` stands in for a missing original length, and gives the factor where that is null.
    """
    rope = None
    for name in ("rope_scaling", "rope_parameters"):
        if json.get(name) is not None and not isinstance(json[name], dict):
            raise refuse(name, printable(json[name]), "must be an object or null")
        rope = rope or json.get(name)
    rope = rope or {}
    theta = rope.get("rope_theta")
    if theta is None:
        theta = json.get("rope_theta")
    theta = 10000.0 if theta is None else real("rope_theta", theta)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "yarn"):
        raise refuse("rope_scaling.type", printable(kind), "minids knows 'yarn', and 'default' or null for plain RoPE")
    for name, only in (("partial_rotary_factor", 1.0), ("truncate", True)):
        if rope.get(name, only) not in (only, None):
            raise refuse(f"rope_scaling.{name}", printable(rope[name]), f"minids has only {only}")
    return theta, None if kind == "default" else _yarn(json, rope, max_position_embeddings)


def _yarn(json: dict, rope: dict, longest: object) -> Yarn:
    def number(name: str, default: float) -> float:
        return default if rope.get(name) is None else real(f"rope_scaling.{name}", rope[name])

    name = "original_max_position_embeddings"
    original = scalar(f"rope_scaling.{name}", json.get(name, rope.get(name, longest)))
    if isinstance(original, float) and original.is_integer():  # some tools write every number of this object as a float
        original = int(original)
    if type(original) is not int or not 1 <= original <= LIMIT:
        raise refuse(f"rope_scaling.{name}", printable(original), "must be a whole number of at least 1")
    factor = number("factor", 0.0)
    if rope.get("factor") is None:
        factor = real("max_position_embeddings", longest) / original
    mscale, mscale_all_dim = number("mscale", 1.0), number("mscale_all_dim", 0.0)
    yarn = Yarn(
        factor=factor,
        original_max_position_embeddings=original,
        beta_fast=number("beta_fast", 32.0) or 32.0,
        beta_slow=number("beta_slow", 1.0) or 1.0,
        mscale=mscale,
        mscale_all_dim=mscale_all_dim,
    )
    wanted = _amplitude_in_transformers(rope, yarn)
    if math.isclose(_amplitude(yarn), wanted, rel_tol=1e-12):
        return yarn
    # The amplitude follows from something else than mscale: find the mscale that gives it.
    per_unit = 0.1 * math.log(factor) if factor > 1 else 0.0
    solved = (wanted * _m(factor, mscale_all_dim) - 1) / per_unit if per_unit else -1.0
    if solved < -1e-9:
        raise refuse("rope_scaling.attention_factor", wanted, "no mscale of at least 0 gives it; leave it out")
    return dataclasses.replace(yarn, mscale=max(solved, 0.0))


def _m(factor: float, weight: float) -> float:
    """m(s, a) = 0.1 a ln s + 1 (DeepSeek-V2 report, section 3.1.4)."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def _amplitude(yarn: Yarn) -> float:
    """What cos and sin are multiplied by: m(s, mscale) / m(s, mscale_all_dim)."""
    return _m(yarn.factor, yarn.mscale) / _m(yarn.factor, yarn.mscale_all_dim)


def _amplitude_in_transformers(rope: dict, yarn: Yarn) -> float:
    """The same as transformers reads it: ``attention_factor`` if given; mscale only if both of them are given and not 0."""
    if rope.get("attention_factor") is not None:
        return real("rope_scaling.attention_factor", rope["attention_factor"])
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return _amplitude(yarn)
    return _m(yarn.factor, 1.0)


def rope_to_json(rope_theta: float, yarn: Yarn | None) -> dict:
    """The fields ``rope_theta``, ``rope_scaling`` and ``rope_parameters``, saying the same thing twice."""
    theta = float(rope_theta)
    if yarn is None:
        return {
            "rope_theta": theta,
            "rope_scaling": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        }
    both = {"rope_type": "yarn", **_yarn_to_json(yarn)}
    return {
        "rope_theta": theta,
        "rope_scaling": {"type": "yarn", **both},
        "rope_parameters": {**both, "rope_theta": theta},
    }


def _yarn_to_json(yarn: Yarn) -> dict:
    values = {name: float(value) for name, value in dataclasses.asdict(yarn).items()}
    values["original_max_position_embeddings"] = yarn.original_max_position_embeddings
    if not math.isclose(_amplitude_in_transformers(values, yarn), _amplitude(yarn), rel_tol=1e-12):
        values["attention_factor"] = _amplitude(yarn)  # one of the two is 0, which transformers takes for "not given"
    return values
