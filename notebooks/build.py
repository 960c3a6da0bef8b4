"""Build the notebooks from their sources: executed pages, exercise versions, and their table, README.md and index.ipynb.

    python notebooks/build.py            all of them
    python notebooks/build.py 02 05      those whose names begin so

A source is a py:percent file, notebooks/src/NN_name.py: plain Python with cells between `# %%` lines, made for diffs and
linters. From it come

    notebooks/NN_name.ipynb              executed, with outputs: the page that readers see
    notebooks/exercises/NN_name.ipynb    the same without outputs, and without the solutions

What a source may rely on:

- The first cell is Markdown: `# N. Title`, then one paragraph, the question. The builder adds links below it. Where
  pyproject.toml names the address of the repository (`[tool.minids] repository`), a badge that opens the notebook in
  Colab comes with them, and a cell that installs this package where it is missing.
- Links are written from the root of the repository, [rope](minids/ops/rope.py), and made relative here.
- `# %% tags=["solution"]` marks the answer to an exercise. In the exercise version its functions keep signature, docstring and
  the comments that open their body, which serve as hints; its assignments keep their left side; the rest is `...`.
- `# %% tags=["picture"]` marks a cell that only draws: JupyterLab and Colab show it folded.
- `# %% tags=["timing"]` marks a cell that looks at the clock. It is executed like all others, but what it shows differs
  from run to run, so it is not kept: a note stands in its place. No other cell may depend on it.
- `# %% tags=["check"]` marks the cell that judges it. It has to print "✗" for the stub and "✓" for the solution, and not to
  raise for either; tests hold every exercise to that.

The same source always gives the same file: cells have numbers for ids, and nothing measured or dated is kept.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import jupytext
import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
SOURCES = FOLDER / "src"
EXERCISES = FOLDER / "exercises"

INDEX = "index.ipynb"
LARGEST = 400_000
"""Bytes of a built notebook. A reader on a phone waits for every one of them."""
LONGEST = 600
"""Seconds after which a cell is given up: it hangs."""

YOUR_CODE = "...  # your code here"
STATIC = "MINIDS_STATIC"
"""Set while building: sliders are left out, because a page without a kernel cannot move them (see minids/lab/notebook.py)."""

NOT_KEPT = "Run this cell to see the times of your machine: they differ from run to run, so none are kept here.\n"

_LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")
_HEADING = re.compile(r"\A# (\d+)\. (.+)\n\n((?:.+\n?)+)")


class Cell(NamedTuple):
    kind: str
    """"markdown" or "code"."""
    text: str
    tags: tuple[str, ...] = ()


def repository() -> str:
    """Address of the repository on its hosting site, from the one setting that holds it; "" where there is none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return project["tool"]["minids"]["repository"].rstrip("/")


def sources(beginnings: list[str] = ()) -> list[Path]:
    """All sources in order, or those whose names begin with one of ``beginnings``."""
    found = [p for p in sorted(SOURCES.glob("*.py")) if not beginnings or p.name.startswith(tuple(beginnings))]
    if not found:
        sys.exit(f"no source in {SOURCES.relative_to(ROOT)} begins with {' or '.join(beginnings)}")
    return found


# From a source to cells.


def cells_of(source: Path) -> list[Cell]:
    """The cells of a source as they are written, links from the root."""
    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    cells = [Cell(c.cell_type, c.source.strip("\n"), tuple(c.metadata.get("tags", ()))) for c in notebook.cells]
    if not cells or cells[0].kind != "markdown" or not _HEADING.match(cells[0].text):
        raise ValueError(f"{source.name}: the first cell must be Markdown, '# N. Title' and a paragraph")
    return cells


def heading(source: Path) -> tuple[int, str, str]:
    """Number, title and the question that the notebook begins with."""
    number, title, question = _HEADING.match(cells_of(source)[0].text).groups()
    return int(number), title, " ".join(question.split())


def full(source: Path) -> list[Cell]:
    """What is executed: badges and installation in front, solutions in."""
    first, *rest = cells_of(source)
    return [Cell("markdown", f"{first.text}\n\n{_links(source, exercises=False)}"), *_installation(), *rest]


def exercises(source: Path) -> list[Cell]:
    """The version to work in: every solution is a stub."""
    first, *rest = cells_of(source)
    stubs = [Cell(c.kind, stub(c.text), ("exercise",)) if "solution" in c.tags else c for c in rest]
    return [Cell("markdown", f"{first.text}\n\n{_links(source, exercises=True)}"), *_installation(), *stubs]


def rehearsal(source: Path) -> list[Cell]:
    """What the tests execute: at every exercise first the stub and its check, then the solution and its check."""
    rehearsed: list[Cell] = []
    pending: list[Cell] = []  # solutions whose check has not come yet
    for cell in full(source):
        if "solution" in cell.tags:
            pending.append(cell)
            rehearsed.append(Cell("code", stub(cell.text), ("stub",)))
        elif "check" in cell.tags:
            rehearsed += [cell._replace(tags=("must fail",)), *pending, cell._replace(tags=("must pass",))]
            pending = []
        else:
            rehearsed.append(cell)
    if pending:
        raise ValueError(f"{source.name}: a solution has no check after it")
    return rehearsed


def stub(solution: str) -> str:
    """A solution without what has to be found out."""
    lines, kept = solution.split("\n"), []
    for node in ast.parse(solution).body:
        if kept:
            kept.append("")
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            kept.append(ast.get_source_segment(solution, node))
        elif isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            stop = body[0].lineno - 1 if body else node.end_lineno
            kept += [*lines[node.lineno - 1 : stop], " " * node.body[0].col_offset + YOUR_CODE]
        elif isinstance(node, ast.Assign):
            kept.append(" = ".join(ast.unparse(target) for target in node.targets) + f" = {YOUR_CODE}")
        else:
            raise ValueError(f"a solution consists of functions and assignments, not of {type(node).__name__}")
    return "\n".join(kept)


def _links(source: Path, exercises: bool) -> str:
    name = f"{source.stem}.ipynb"
    here = f"notebooks/exercises/{name}" if exercises else f"notebooks/{name}"
    other = f"[with solutions](notebooks/{name})" if exercises else f"[exercise version](notebooks/exercises/{name})"
    return " · ".join([*colab_badge(here), other, "[all notebooks](notebooks/README.md)"])


def colab_badge(path: str) -> list[str]:
    """A badge that opens a notebook of the repository in Colab; none where the repository has no address."""
    if not (address := repository()):
        return []
    link = f"https://colab.research.google.com/github/{address.removeprefix('https://github.com/')}/blob/main/{path}"
    return [f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})"]


def _installation() -> list[Cell]:
    if not (address := repository()):
        return []
    lines = (
        "import importlib.util",
        "",
        'if importlib.util.find_spec("minids") is None:  # Colab; in a clone, `make lab` has installed it',
        f'    %pip install --quiet "minids[notebooks] @ git+{address}"',
    )
    return [Cell("code", "\n".join(lines))]


# From cells to a notebook file.


def notebook_of(cells: list[Cell], folder: Path) -> nbformat.NotebookNode:
    """A notebook without outputs, its links relative to ``folder``."""
    made = nbformat.v4.new_notebook()
    made.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(cells):
        new = nbformat.v4.new_markdown_cell if cell.kind == "markdown" else nbformat.v4.new_code_cell
        node = new(_linked(cell.text, folder) if cell.kind == "markdown" else cell.text)
        node.id = f"cell-{number:03d}"
        if cell.tags:
            node.metadata["tags"] = list(cell.tags)
        if "picture" in cell.tags:
            node.metadata |= {"cellView": "form", "jupyter": {"source_hidden": True}}  # Colab, JupyterLab
        made.cells.append(node)
    return made


def _linked(text: str, folder: Path) -> str:
    return _LINK.sub(lambda m: f"]({os.path.relpath(ROOT / m[1], folder).replace(os.sep, '/')})", text)


def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Run all cells in a fresh kernel, one BLAS thread: sums then do not depend on the number of cores."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **threads, STATIC: "1", "TQDM_DISABLE": "1", "PYTHONPATH": path}  # no bars, which move
    quiet = ["--log-level=40"]  # without it every kernel warns that it talks to its parent unencrypted
    client = NotebookClient(notebook, timeout=LONGEST, kernel_name="python3", record_timing=False, extra_arguments=quiet)
    client.execute(env=environment, cwd=str(FOLDER))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            timed = "timing" in cell.metadata.get("tags", ())
            cell.outputs = _without_times(cell.outputs) if timed else _joined(cell.outputs)
    notebook.metadata["language_info"] = {"name": "python"}  # the kernel adds its exact version
    return notebook


def _joined(outputs: list) -> list:
    """Streams arrive in pieces, cut by chance: one piece per stream."""
    joined: list = []
    for output in outputs:
        if joined and output.output_type == "stream" == joined[-1].output_type and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _without_times(outputs: list) -> list:
    """The note that stands in place of measured times; complaints are kept, so that ``faults`` finds them."""
    complaints = [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    return [nbformat.v4.new_output("stream", name="stdout", text=NOT_KEPT), *complaints]


def faults(notebook: nbformat.NotebookNode, text: str) -> list[str]:
    """What a finished file must not have."""
    found = []
    if len(text.encode()) > LARGEST:
        found.append(f"{len(text.encode()):,} bytes; at most {LARGEST:,}: fewer or smaller pictures")
    if paths := sorted(set(re.findall(r"(?:/(?:home|work|tmp|root|Users)/|[A-Z]:\\\\Users)[^\s\"']*", text))):
        found.append(f"paths of this machine: {', '.join(paths)}")
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"cell {number} complains: {output.get('text') or output.get('evalue')}")
    return found


def text_of(notebook: nbformat.NotebookNode) -> str:
    """The file's text, the same for the same notebook."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=4) + "\n"


def contents() -> str:
    """The text of notebooks/README.md."""
    lines = [
        "# Notebooks",
        "",
        "DeepSeek-V3 step by step, on arrays small enough to print. Read them here, or run them: `make lab` opens JupyterLab",
        "on this page, VS Code opens the files as they are. The exercise version of a notebook has no outputs, and stubs in",
        "place of the solutions; its checks tell you what is wrong. One trained model ([model](model/README.md)) and one",
        "sentence go through 1 to 9.",
        "",
        "Three routes: to understand it 1, 3 to 9; to build it 0, 2, 10 to 12, 14, 16 to 18; to count its cost 1, 4, 13, 15.",
        "",
        "| | notebook | the question | |",
        "|---|---|---|---|",
    ]
    for source in sources():
        number, title, question = heading(source)
        name = f"{source.stem}.ipynb"
        runs = " ".join([f"[exercises](exercises/{name})", *colab_badge(f"notebooks/{name}")])
        lines.append(f"| {number} | [{title}]({name}) | {question} | {runs} |")
    lines += [
        "",
        "The sources are in [src](src), one Python file each; `make notebooks` executes them and writes everything else here.",
    ]
    return "\n".join(lines) + "\n"


def index() -> str:
    """The same as a notebook of one cell, which JupyterLab opens rendered: `make lab` begins there."""
    return text_of(notebook_of([Cell("markdown", contents().rstrip())], ROOT))


def main(beginnings: list[str]) -> None:
    EXERCISES.mkdir(exist_ok=True)
    failed = False
    for source in sources(beginnings):
        print(source.stem, end=" ", flush=True)
        built = execute(notebook_of(full(source), FOLDER))
        text = text_of(built)
        wrong = faults(built, text)
        print(f"{len(text.encode()) / 1000:.0f} kB", *wrong, sep="\n    ")
        failed = failed or bool(wrong)
        (FOLDER / f"{source.stem}.ipynb").write_text(text, encoding="utf-8")
        stubs = text_of(notebook_of(exercises(source), EXERCISES))
        (EXERCISES / f"{source.stem}.ipynb").write_text(stubs, encoding="utf-8")
    (FOLDER / "README.md").write_text(contents(), encoding="utf-8")
    (FOLDER / INDEX).write_text(index(), encoding="utf-8")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
