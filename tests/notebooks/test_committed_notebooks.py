"""The notebooks as they are committed: built from their sources, light, linked, and the same for everybody."""

import ast
import re

import nbformat
import pytest


def read(path):
    return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)


def inputs(notebook):
    return [(cell.cell_type, cell.source, cell.id, cell.metadata.get("tags", [])) for cell in notebook.cells]


def test_the_committed_notebook_is_that_of_the_source(builder, source):
    committed = read(builder.FOLDER / f"{source.stem}.ipynb")
    made = builder.notebook_of(builder.full(source), builder.FOLDER)
    assert inputs(committed) == inputs(made), "run `make notebooks`"


def test_the_committed_exercises_are_those_of_the_source(builder, source):
    committed = (builder.EXERCISES / f"{source.stem}.ipynb").read_text(encoding="utf-8")
    made = builder.text_of(builder.notebook_of(builder.exercises(source), builder.EXERCISES))
    assert committed == made, "run `make notebooks`"


def test_the_committed_table_of_contents_is_that_of_the_sources(builder):
    assert (builder.FOLDER / "README.md").read_text(encoding="utf-8") == builder.contents(), "run `make notebooks`"
    assert (builder.FOLDER / builder.INDEX).read_text(encoding="utf-8") == builder.index(), "run `make notebooks`"


def test_every_code_cell_was_executed_in_order_from_a_fresh_kernel(builder, source):
    counts = [c.execution_count for c in read(builder.FOLDER / f"{source.stem}.ipynb").cells if c.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_no_time_of_one_machine_is_kept(builder, source):
    for cell in read(builder.FOLDER / f"{source.stem}.ipynb").cells:
        if "timing" in cell.metadata.get("tags", []):
            assert [output.get("text") for output in cell.outputs] == [builder.NOT_KEPT]


def test_nothing_is_too_large_fails_complains_or_holds_a_path_of_one_machine(builder, source):
    for path in (builder.FOLDER / f"{source.stem}.ipynb", builder.EXERCISES / f"{source.stem}.ipynb"):
        assert builder.faults(read(path), path.read_text(encoding="utf-8")) == []


def test_exercise_version_differs_in_the_solutions_alone(builder, source):
    complete, to_do = builder.full(source), builder.exercises(source)
    assert len(complete) == len(to_do)
    for number, (one, other) in enumerate(zip(complete, to_do, strict=True)):
        if "solution" in one.tags:
            assert other == ("code", builder.stub(one.text), ("exercise",)), f"cell {number}"
        elif number:  # the first has the links
            assert one == other, f"cell {number}"


def test_at_least_three_exercises_each_with_a_check_and_a_wrong_solution_that_is_caught(builder, source):
    cells = builder.cells_of(source)
    assert sum("solution" in cell.tags for cell in cells) >= 3
    assert sum("check" in cell.tags for cell in cells) >= 3
    assert sum("notebook.caught(" in cell.text for cell in cells) >= 1


GUESS = "Write your guess; then run"


def test_a_notebook_asks_a_question_shows_where_it_is_and_ends_with_a_card(builder, source):
    """What every notebook has, in this order, so that it can be read alone."""
    cells = builder.cells_of(source)
    assert re.search(r"\*\*[^*]+\?\*\*", cells[0].text.replace("*know*", "know")), "the question, in bold, stands at the top"
    first = next(cell for cell in cells if cell.kind == "code")
    assert re.search(r"^notebook\.here\(", first.text, re.MULTILINE), "the map of the model stands in the first cell"
    last = cells[-1]
    assert re.search(r"^notebook\.card\(", last.text, re.MULTILINE) and "picture" in last.tags, (
        "the card is the last cell, folded"
    )
    facts = re.findall(r"^    - ", last.text, re.MULTILINE)
    assert len(facts) == 3, f"a card has three facts, not {len(facts)}"
    *_, links = (cell.text for cell in cells if cell.kind == "markdown")
    assert re.search(r"^## Where to go from here\n\n(.*\n)*- ", links, re.MULTILINE), (
        "links to other pages stand before the card"
    )


def test_at_least_three_times_the_reader_is_asked_before_the_answer_is_shown(builder, source):
    cells = builder.cells_of(source)
    paragraphs = [[" ".join(paragraph.split()) for paragraph in cell.text.split("\n\n")] for cell in cells]
    asked = [number for number, found in enumerate(paragraphs) if any(GUESS in paragraph for paragraph in found)]
    assert len(asked) >= 3
    for number in asked:
        assert GUESS in paragraphs[number][-1], f"the question ends its cell: {cells[number].text[-200:]}"
        assert cells[number + 1].kind == "code" and not {"solution", "check"} & set(cells[number + 1].tags)


def test_drawing_is_left_to_the_package(builder, source):
    """A cell computes; what draws is in minids/lab/plots."""
    for cell in builder.cells_of(source):
        assert cell.kind != "code" or not re.search(r"notebook\.(picture|show)\(|matplotlib", cell.text), cell.text


def test_links_lead_to_files(builder, source):
    links = [link for cell in builder.cells_of(source) for link in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", cell.text)]
    for link in links:
        assert (builder.ROOT / link.partition("#")[0]).exists(), f"{link} is not there"
    assert any(link.startswith("minids/") for link in links), "no link to the source of what is used"
    assert "arxiv.org" in "".join(cell.text for cell in builder.cells_of(source)), "no link to the paper"


def test_every_module_of_the_package_that_is_imported_is_linked(builder, source):
    cells = builder.cells_of(source)
    prose = "\n".join(cell.text for cell in cells if cell.kind == "markdown")
    for cell in cells:
        if cell.kind != "code":
            continue
        for node in ast.walk(ast.parse(cell.text)):
            if not isinstance(node, ast.ImportFrom) or not node.module.startswith("minids."):
                continue
            for alias in node.names:
                if alias.name == "notebook" or node.module.startswith("minids.lab.plots"):  # what draws the pages themselves
                    continue
                place = "/".join(node.module.split("."))
                places = (f"{place}/{alias.name}.py", f"{place}.py", f"{place}/")
                assert any(f"({p}" in prose for p in places), f"{node.module}.{alias.name} has no link"


def test_formulas_are_closed(builder, source):
    for cell in builder.cells_of(source):
        if cell.kind == "markdown":
            text = re.sub(r"```.*?```|`[^`]*`", "", cell.text, flags=re.DOTALL).replace(r"\$", "")
            assert text.count("$$") % 2 == 0, cell.text
            assert text.replace("$$", "").count("$") % 2 == 0, cell.text
            for formula in re.findall(r"\$\$(.*?)\$\$", text, re.DOTALL):
                assert formula.count("{") == formula.count("}"), formula
                assert "\n\n" not in formula, f"an empty line ends a formula: {formula}"


ADDRESS = "https://hosting.example/somebody/minids"


def test_with_an_address_the_package_is_installed_first_where_it_is_missing(builder, source, monkeypatch):
    monkeypatch.setattr(builder, "repository", lambda: ADDRESS)
    first, second, *_ = builder.full(source)
    assert f"git+{ADDRESS}" in second.text and "find_spec" in second.text
    assert f"/blob/main/notebooks/{source.stem}.ipynb" in first.text and "Open in Colab" in first.text


def test_without_an_address_no_link_leads_to_it(builder, source, monkeypatch):
    monkeypatch.setattr(builder, "repository", lambda: "")
    text = "".join(cell.text for cell in [*builder.full(source), *builder.exercises(source)]) + builder.contents()
    assert "colab.research" not in text and "git+" not in text


SOLUTION = '''
def answer(x, y):
    """What it returns."""
    # A hint.
    z = x + y
    return z


number = 3 * 7
'''


def test_a_stub_keeps_the_question_and_not_the_answer(builder):
    stub = builder.stub(SOLUTION.strip())
    assert 'def answer(x, y):\n    """What it returns."""\n    # A hint.\n    ...  # your code here' in stub
    assert "number = ...  # your code here" in stub
    assert "z" not in stub and "7" not in stub


def test_a_stub_of_something_else_is_refused(builder):
    with pytest.raises(ValueError, match="functions and assignments"):
        builder.stub("print(42)")


@pytest.mark.parametrize("bad", ["/home/someone/x.py", "/tmp/ipykernel_1/2.py"])
def test_a_path_of_this_machine_is_found(builder, bad):
    notebook = builder.notebook_of([builder.Cell("code", f"open('{bad}')")], builder.FOLDER)
    assert builder.faults(notebook, builder.text_of(notebook))


def test_links_are_made_relative_to_the_folder(builder):
    cells = [builder.Cell("markdown", "[a](minids/ops/rope.py) [b](https://x.y/z) [c](#d)")]
    assert builder.notebook_of(cells, builder.FOLDER).cells[0].source == "[a](../minids/ops/rope.py) [b](https://x.y/z) [c](#d)"
    assert "(../../minids/ops/rope.py)" in builder.notebook_of(cells, builder.EXERCISES).cells[0].source
