"""RoPE and YaRN in ``config.json``: two spellings read, both written.

    old    "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 40, …}          DeepSeek's releases
    new    "rope_parameters": {"rope_theta": 10000, "rope_type": "yarn", "factor": 40, …}  transformers 5

cos and sin are multiplied by m(s, mscale) / m(s, mscale_all_dim), where m(s, a) = 0.1 · a · ln s + 1 (DeepSeek-V2 report,
section 3.1.4). transformers ignores both mscales unless both are given and not 0, and lets ``attention_factor`` overrule them.
DeepSeek's code does neither; where they disagree, transformers is followed.
"""

import dataclasses
import math
from typing import Any

from minids.config import Yarn
from minids.errors import refuse
from minids.ops.yarn import mscale


def rope_from_json(json: dict[str, Any], max_position_embeddings: object) -> tuple[Any, Yarn | None]:
    """(rope_theta, YaRN or None) of a file. Where it has both spellings the old one counts, as in transformers.
    ``max_position_embeddings`` stands in for a missing original length, and gives the factor where that is null."""
    for name in ("rope_scaling", "rope_parameters"):
        if not isinstance(json.get(name), (dict, type(None))):
            raise refuse(name, json[name], "must be an object or null")
    rope = json.get("rope_scaling") or json.get("rope_parameters") or {}
    theta = _number(rope, "rope_theta", _number(json, "rope_theta", 10000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "yarn"):
        raise refuse("rope_scaling.type", kind, "minids knows 'yarn', and 'default' or null for plain RoPE")
    for name, only in (("partial_rotary_factor", 1.0), ("truncate", True)):
        if rope.get(name, only) not in (only, None):
            raise refuse(f"rope_scaling.{name}", rope[name], f"minids has only {only}")
    return theta, None if kind == "default" else _yarn(json, rope, max_position_embeddings)


def _number(fields: dict[str, Any], name: str, default: Any) -> Any:
    """A field as a float; as it stands where it is no number, which ModelConfig and Yarn refuse by name."""
    value = default if fields.get(name) is None else fields[name]
    return float(value) if type(value) is int and abs(value) < 1 << 53 else value


def _yarn(json: dict[str, Any], rope: dict[str, Any], longest: Any) -> Yarn:
    name = "original_max_position_embeddings"
    original = json.get(name, rope.get(name, longest))
    if isinstance(original, float) and original.is_integer():  # some tools write every number of this object as a float
        original = int(original)
    factor = _number(rope, "factor", None)
    if factor is None and type(original) is int and type(longest) is int and original > 0:
        factor = longest / original
    yarn = Yarn(
        factor=factor,
        original_max_position_embeddings=original,
        beta_fast=_number(rope, "beta_fast", 32.0) or 32.0,
        beta_slow=_number(rope, "beta_slow", 1.0) or 1.0,
        mscale=_number(rope, "mscale", 1.0),
        mscale_all_dim=_number(rope, "mscale_all_dim", 0.0),
    )
    wanted = _amplitude_in_transformers(rope, yarn)
    if type(wanted) not in (int, float):
        raise refuse("rope_scaling.attention_factor", wanted, "must be a number")
    if math.isclose(_amplitude(yarn), wanted, rel_tol=1e-12):
        return yarn
    # The amplitude follows from something else than mscale: find the mscale that gives it.
    per_unit = mscale(yarn.factor, 1.0) - 1.0
    solved = (wanted * mscale(yarn.factor, yarn.mscale_all_dim) - 1) / per_unit if per_unit else -1.0
    if not solved >= -1e-9:
        raise refuse("rope_scaling.attention_factor", wanted, "no mscale of at least 0 gives it; leave it out")
    return dataclasses.replace(yarn, mscale=max(solved, 0.0))


def _amplitude(yarn: Yarn) -> float:
    return mscale(yarn.factor, yarn.mscale) / mscale(yarn.factor, yarn.mscale_all_dim)


def _amplitude_in_transformers(rope: dict[str, Any], yarn: Yarn) -> Any:
    """The same as transformers reads it: ``attention_factor`` if given; mscale only if both of them are given and not 0."""
    if rope.get("attention_factor") is not None:
        return rope["attention_factor"]
    return _amplitude(yarn) if rope.get("mscale") and rope.get("mscale_all_dim") else mscale(yarn.factor, 1.0)


def rope_to_json(rope_theta: float, yarn: Yarn | None) -> dict[str, Any]:
    """The fields ``rope_theta``, ``rope_scaling`` and ``rope_parameters``, saying the same thing twice."""
    theta = float(rope_theta)
    if yarn is None:
        return {"rope_theta": theta, "rope_scaling": None, "rope_parameters": {"rope_type": "default", "rope_theta": theta}}
    values: dict[str, Any] = {name: float(value) for name, value in dataclasses.asdict(yarn).items()}
    values["original_max_position_embeddings"] = yarn.original_max_position_embeddings
    if not math.isclose(_amplitude_in_transformers(values, yarn), _amplitude(yarn), rel_tol=1e-12):
        values["attention_factor"] = _amplitude(yarn)  # one of the two is 0, which transformers takes for "not given"
    both = {"rope_type": "yarn", **values}
    return {"rope_theta": theta, "rope_scaling": {"type": "yarn", **both}, "rope_parameters": {**both, "rope_theta": theta}}
