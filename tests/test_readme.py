"""The README is held to the code: its tables are generated, its links lead somewhere, its sample of code is the source."""

import re
from pathlib import Path

import pytest

import minids
from minids.config import ModelConfig, TrainConfig
from minids.config.presets import PRESETS, TRAINABLE
from minids.lab import sections
from minids.lab.analysis import parameters
from minids.lab.equations import EQUATIONS, mentioned, references, table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
USE = (ROOT / "docs" / "use.md").read_text(encoding="utf-8")


def test_the_equation_table_is_the_generated_one():
    report = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- equations: python -m minids\.lab\.equations -->\n(.*?)\n<!-- /equations -->", report, re.DOTALL)
    assert shown and shown[1] == table(), "run `python -m minids.lab.equations` and paste what it prints"


def test_the_map_of_sections_is_the_generated_one():
    shown = re.search(r"<!-- sections: python -m minids\.lab\.sections -->\n(.*?)\n<!-- /sections -->", README, re.DOTALL)
    assert shown and shown[1] == sections.table(), "run `python -m minids.lab.sections` and paste what it prints"


def test_every_numbered_equation_of_the_report_is_somewhere():
    found = set().union(*references().values())
    wanted = {number for numbers in EQUATIONS for number in numbers}
    assert wanted == set(range(1, 29))
    assert wanted <= found, f"no docstring mentions equations {sorted(wanted - found)}"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("DeepSeek-V3 eqs 13-16 and section 2.1.2", {13, 14, 15, 16}),
        ("eqs 2, 4 and 5", {2, 4, 5}),
        ("Su et al. 2021, eq. 15; DeepSeek-V3 eqs 3 and 8", {3, 8}),
        ("DeepSeek-V2 eqs 23-25", set()),
        ("not KL's (V3.2, eq. 7); of both (V3.2, eqs 8 and 9)", set()),
        ("nothing", set()),
    ],
)
def test_references_are_read_and_other_papers_left_out(text, numbers):
    assert mentioned(text) == numbers


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{target} is not there"


def test_the_readme_stays_short():
    assert len(README.splitlines()) <= 170


def test_every_document_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name == "README.md" or f"({path.name})" in index, f"{path.name} is not in docs/README.md"


def test_the_sample_of_code_is_the_source():
    sample = re.search(r"```python\n(def mla_backward.*?)```", README, re.DOTALL)[1]
    assert sample in (ROOT / "minids" / "pico.py").read_text(encoding="utf-8")


def test_the_preset_table_has_the_numbers_of_the_code():
    for name in PRESETS:
        config = ModelConfig.preset(name)
        if name in TRAINABLE and (run := TrainConfig.preset(name)).tokenizer == "bpe":
            config = config.replace(vocab_size=run.bpe_vocab_size)  # as its run trains it
        row = re.search(rf"\| `{name}` \|([^\n]*)\|\n", USE)
        assert row, f"{name} is not in the table of presets"
        numbers = [cell.strip() for cell in row[1].split("|")]
        assert numbers[0] == short(parameters.total(config) + parameters.mtp_total(config)), name
        assert numbers[1] == short(parameters.activated(config, "both")), name
        context = TrainConfig.preset(name).context_length if name in TRAINABLE else config.max_position_embeddings
        assert numbers[2] == f"{context:,}", name


def short(number: int) -> str:
    """1234567 → 1.23 M."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def test_names_used_in_the_readme_exist():
    for name in set(re.findall(r"\bminids\.([A-Za-z_]+)\(", README + USE)):
        assert hasattr(minids, name), f"minids.{name} is in the documents and not in the package"


def test_no_place_is_left_empty():
    assert not re.findall(r"@[A-Z_]+@", README)
