"""Where each equation of the DeepSeek-V3 report is in the code: found in the docstrings, so that the table cannot go stale.

``python -m minids.lab.equations`` prints the table of docs/report.md.
"""

import ast
import re
from pathlib import Path

from minids.terminal import say

EQUATIONS = {
    range(1, 3): "KV latent, keys from it",
    range(3, 5): "shared rotary key; first concatenation [k^C ; k^R]",
    range(5, 6): "values from the latent",
    range(6, 8): "query latent, queries from it",
    range(8, 10): "rotary queries; second concatenation [q^C ; q^R]",
    range(10, 12): "attention and its output",
    range(12, 13): "shared plus routed experts",
    range(13, 16): "gates: scores, top-K, normalisation",
    range(16, 17): "choice by the biased score",
    range(17, 21): "sequence-wise balance loss",
    range(21, 22): "MTP: norm, concatenate, project",
    range(22, 24): "MTP: the module's block and the shared head",
    range(24, 26): "MTP losses and their weight",
    range(26, 29): "GRPO: loss, divergence from the reference, advantages",
}
"""Equation numbers of the report (arXiv 2412.19437, first version) and what they say."""

_REFERENCE = re.compile(r"eqs?\.? (\d+(?:(?:-|, | and )\d+)*)")
_OTHER_PAPER = re.compile(
    r"(20\d\d|V2|V3\.2)[^.;\n]*$"
)  # "Su et al. 2021, eq. 15", "V3.2, eq. 9"; a bare "eq. 9" is the V3 report's


def mentioned(docstring: str) -> set[int]:
    """Equations of the V3 report that a docstring refers to."""
    found: set[int] = set()
    for match in _REFERENCE.finditer(docstring):
        if _OTHER_PAPER.search(docstring[: match.start()]):
            continue
        for part in re.split(r", | and ", match[1]):
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    return found


def references() -> dict[str, set[int]]:
    """Every docstring below ops/ and layers/ and in model.py that refers to an equation, as module or module.function."""
    root = Path(__file__).parent.parent
    result: dict[str, set[int]] = {}
    for path in (*sorted(root.glob("ops/*.py")), *sorted(root.glob("layers/*.py")), root / "model.py"):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        if path.name == "__init__.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in (tree, *ast.walk(tree)):
            if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
                name = module if isinstance(node, ast.Module) else f"{module}.{node.name}"
                if found := mentioned(ast.get_docstring(node) or ""):
                    result[name] = result.get(name, set()) | found
    return result


def table() -> str:
    """The table as Markdown. A module is named where its own docstring holds the equation, else the function."""
    where = references()
    rows = ["| equations | what they say | maths (`minids/ops`) | layer |", "|---|---|---|---|"]
    for numbers, what in EQUATIONS.items():
        names = [name for name, found in where.items() if found & set(numbers)]
        modules = {name for name in names if name.count(".") < 2}
        names = [n for n in names if n in modules or n.rsplit(".", 1)[0] not in modules]
        maths = ", ".join(f"[`{n.split('.')[1]}`](../minids/{_file(n)})" for n in names if n.startswith("ops"))
        layers = ", ".join(f"[`{n}`](../minids/{_file(n)})" for n in names if not n.startswith("ops"))
        label = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}–{numbers[-1]}"
        rows.append(f"| {label} | {what} | {maths or '—'} | {layers or '—'} |")
    return "\n".join(rows)


def _file(name: str) -> str:
    parts = name.split(".")
    return "/".join(parts[:2] if parts[0] in ("ops", "layers") else parts[:1]) + ".py"


if __name__ == "__main__":
    say(table())
