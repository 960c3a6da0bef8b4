"""The pages of worked arithmetic: right to the last number, the same every time, and without what the exam asks."""

import re

import pytest

from minids.training import arithmetic
from minids.training.reserved import reserved

CHAIN = re.compile(r"\d+(?: [-+*/] \d+)*(?: = \d+(?: [-+*/] \d+)*)+")


@pytest.fixture(scope="module")
def pages():
    return [text.decode() for _, text in arithmetic.pages(200_000)]


def test_pages_are_the_same_every_time_and_of_five_sorts(pages):
    assert [text.decode() for _, text in arithmetic.pages(200_000)] == pages
    assert len(set(pages)) == len(pages), "a page was written twice"
    sorts = {page.partition("\n")[0] for page in pages}
    assert sorts == {"Tables", "Drill", "Sums", "Differences", "Problems"}
    assert 200_000 <= sum(map(len, pages)) < 210_000


def test_every_chain_of_equations_is_right(pages):
    chains = [chain for page in pages for chain in CHAIN.findall(page)]
    assert len(chains) > 5_000
    for chain in chains:
        assert len({eval(term) for term in chain.split(" = ")}) == 1, chain


def test_a_table_has_each_fact_of_its_number_once(pages):
    blocks = [block.strip().split("\n") for page in pages if page.startswith("Tables") for block in page.split("\n\n")[1:]]
    for title, *facts in blocks:
        assert 9 <= len(facts) <= 10 and len(set(facts)) == len(facts), title
        number = title.split()[-1]
        assert all(re.search(rf" [-+*/] {number} = ", fact) for fact in facts), title
    assert len({title for title, *_ in blocks}) == 36, "four operations with nine numbers"


def test_what_the_exam_keeps_for_itself_is_asked_on_no_page(pages):
    written = [
        (int(a), "+", int(b)) for page in pages for a, b in re.findall(r"^What is (\d+) \+ (\d+)\?$", page, re.MULTILINE)
    ]
    for name in ("Sums", "Differences"):
        some = "".join(page for page in pages if page.startswith(name))
        found = re.findall(r"^(\d+) ([-+]) (\d+) = ", some, re.MULTILINE)
        written += [(int(a), operation, int(b)) for a, operation, b in found]
    assert len(written) > 2_000
    assert not [each for each in written if reserved(*each)]


def test_questions_with_one_of_a_thing_are_good_english():
    for kind in range(arithmetic.KINDS):
        for a, b in ((1, 1), (1, 8), (9, 1)):
            assert not re.search(r"\b1 \w+s\b(?! does| are| among)", arithmetic.problem(kind, "Ann", "cup", a, b)), (kind, a, b)
