"""A check that refuses a wrong answer names its true cause or none: tried on what students write (``wrong_answers``).

The notebook runs here, in this process, without its pictures; at each check every wrong answer stands in for the solution once.
"""

import ast
import contextlib
import io
import re
import types

import pytest
from wrong_answers import RIGHT, WRONG

pytestmark = pytest.mark.notebooks

CAUSE = "      likely cause: "
PLACE = re.compile(r"((right|wrong)[^.:]*\bindex[^.:]*[.:])|none of the usual ones fits\.")
"""What only says where, and no why."""


@pytest.fixture
def no_pictures(monkeypatch):
    from minids.lab import notebook

    monkeypatch.setattr(notebook, "show", lambda *a, **k: None)
    monkeypatch.setattr(notebook, "explore", lambda *a, **k: None)
    yield
    notebook._held.close()


def exercise_of(solution: str) -> str:
    """The last name that a solution defines."""
    last = ast.parse(solution).body[-1]
    return last.name if isinstance(last, ast.FunctionDef) else last.targets[0].id


def answers(builder, source, table):
    """Yields (exercise, old, new, said, what the check printed) for every entry of the table for this notebook."""
    space = types.ModuleType("__main__").__dict__
    solution, exercise = "", ""

    def run(text: str) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(text, source.name, "exec"), space)
        return out.getvalue()

    for cell in builder.cells_of(source):
        if cell.kind != "code" or "timing" in cell.tags:
            continue
        text = re.sub(r"(?m)^%.*$", "", cell.text)
        run(text)
        if "solution" in cell.tags:
            solution, exercise = text, exercise_of(text)
        elif "check" in cell.tags:
            for old, new, *said in table.get(exercise, ()):
                assert old in solution, f"{exercise}: the solution no longer holds {old!r}"
                run(solution.replace(old, new))
                yield exercise, old, new, *said, run(text)
            run(solution)


def causes(printed: str) -> list[str]:
    """The likely causes in what a check printed; those that only say where, and none of the usual, left out."""
    found = [line.removeprefix(CAUSE) for line in printed.split("\n") if line.startswith(CAUSE)]
    return [cause for cause in found if not PLACE.fullmatch(cause)]


def fault(said: str | None, printed: str) -> str:
    """What is not as it should be in what a check printed to a wrong answer, "" if nothing is."""
    found = causes(printed)
    if "✗" not in printed:
        return "not noticed"
    if said is None:
        return "names a cause, where the numbers tell none" if found else ""
    return "" if any(said in cause for cause in found) else f"should speak of {said!r}"


def test_what_is_said_to_an_answer_is_true_or_nothing(builder, source, no_pictures):
    wrong, right = WRONG.get(source.stem[:2], {}), RIGHT.get(source.stem[:2], {})
    table = {name: [*wrong.get(name, ()), *((*pair, True) for pair in right.get(name, ()))] for name in {**wrong, **right}}
    tried, astray = set(), []
    for exercise, old, new, said, printed in answers(builder, source, table):
        tried.add(exercise)
        if said is True:
            why = "" if "✓" in printed and "✗" not in printed else "is right, in a form of its own"
        else:
            why = fault(said, printed)
        if why:
            astray.append(f"{exercise}, {old!r} → {new!r}: {why}\n{printed}")
    assert tried == set(table), f"no exercise of this name: {sorted(set(table) - tried)}"
    assert not astray, "\n\n".join(astray)


def test_the_table_holds_a_hundred_answers_to_all_notebooks(builder):
    assert sum(len(answers) for table in WRONG.values() for answers in table.values()) >= 100
    assert set(WRONG) == {source.stem[:2] for source in builder.sources()}
