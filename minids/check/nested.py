"""Arrays inside tuples, named tuples, lists and dicts: walked in one order, each with the path a reader would write."""

from collections.abc import Iterator
from typing import Any

import numpy as np


def leaves(tree: Any, path: str = "y") -> Iterator[tuple[str, Any]]:
    """Every leaf with its path: ``y.weights`` in a named tuple, ``y[0]`` in a tuple or list, ``y['a']`` in a dict, sorted."""
    if isinstance(tree, dict):
        for key in sorted(tree, key=str):
            yield from leaves(tree[key], f"{path}[{key!r}]")
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        for field, child in zip(tree._fields, tree, strict=True):
            yield from leaves(child, f"{path}.{field}")
    elif isinstance(tree, (tuple, list)):
        for index, child in enumerate(tree):
            yield from leaves(child, f"{path}[{index}]")
    else:
        yield path, tree


def rebuild(tree: Any, values: Iterator) -> Any:
    """A tree of the same form whose leaves are taken from ``values``, in the order of ``leaves``."""
    if isinstance(tree, dict):
        filled = {key: rebuild(tree[key], values) for key in sorted(tree, key=str)}
        return {key: filled[key] for key in tree}
    if isinstance(tree, (tuple, list)):
        children = [rebuild(child, values) for child in tree]
        return type(tree)(*children) if hasattr(tree, "_fields") else type(tree)(children)
    return next(values)


def is_plain_tuple(value: object) -> bool:
    return isinstance(value, tuple) and not hasattr(value, "_fields")


def is_float(value: Any) -> bool:
    """Whether the array is of a floating-point type, bfloat16 and float8 (which NumPy does not know) included."""
    return np.asarray(value).dtype.name.startswith(("float", "bfloat"))


def is_whole(value: Any) -> bool:
    """Whether the array holds integers or truth values, as the chosen experts and a mask do."""
    return np.asarray(value).dtype.kind in "iub"


def copied(value: Any) -> Any:
    """The tree with every array copied, so that whoever gets it cannot change the original."""
    return rebuild(value, iter([leaf.copy() if isinstance(leaf, np.ndarray) else leaf for _, leaf in leaves(value)]))


def changed(before: Any, after: Any) -> str | None:
    """Path (after the root) of the first array that is no longer bit for bit what it was, or None."""
    old, new = dict(leaves(before, "")), dict(leaves(after, ""))
    for path, array in old.items():
        if isinstance(array, np.ndarray):
            now = new.get(path)
            if not isinstance(now, np.ndarray) or now.shape != array.shape or now.tobytes() != array.tobytes():
                return path
    return next((path for path in new if path not in old), None)
