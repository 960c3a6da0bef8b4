"""Rewards by rules, and what is said of rewards that are none."""

import pytest

from minids.checkpoint.tokenizer import byte_tokenizer
from minids.errors import MinidsError
from minids.training.reserved import reserved
from minids.training.rewards import TASKS, checked, exact_result, well_formed

ASKED = "Problems\n\nWhat is 47 + 25?\n"


@pytest.mark.parametrize(
    ("answer", "right", "formed"),
    [
        ("47 + 25 = 60 + 12 = 72.\n", 1, 1),
        ("47 + 25 = 72.\n", 1, 1),
        ("47 + 25 = 60 + 12 = 71.\n", 0, 1),
        ("72\n", 1, 0),
        ("47 + 25 = 72.", 0, 0),  # no end: cut off
        ("47 + 25 = 72. 3.\n", 0, 0),
        ("74 + 25 = 72.\n", 1, 0),
        ("\n", 0, 0),
        ("", 0, 0),
    ],
)
def test_rules(answer, right, formed):
    assert exact_result(ASKED, answer) == right and well_formed(ASKED, answer) == formed


def test_a_task_learns_from_no_problem_of_the_exam_and_is_measured_by_no_other():
    tokenizer = byte_tokenizer()
    for name, make in TASKS.items():
        task = make(tokenizer)
        assert task.name == name
        for questions, of_the_exam in ((task.questions, False), (task.held_out, True)):
            texts = [tokenizer.decode(ids) for ids in questions]
            assert len(set(texts)) == len(texts) > 500
            for text in texts:
                a, b = text.removeprefix("Problems\n\nWhat is ").removesuffix("?\n").split(" + ")
                assert reserved(int(a), "+", int(b)) == of_the_exam
        asked = tokenizer.decode(task.questions[0])
        assert task.reward(asked, "10 + 10 = 20.\n") in (1, 1.1)


@pytest.mark.parametrize("value", ["good", None, float("nan"), float("inf"), [1]])
def test_a_reward_that_is_no_number_is_refused_with_what_it_was_asked(value):
    with pytest.raises(MinidsError, match=r"^reward = .*finite number; for the question '2 \+ 2' and the answer '4'"):
        checked(lambda question, answer: value, "2 + 2", "4")


def test_a_reward_that_fails_is_named_in_one_line():
    with pytest.raises(MinidsError, match=r"^reward: ZeroDivisionError: .*; for the question \[1, 2\] and the answer \[3\]"):
        checked(lambda question, answer: 1 / 0, [1, 2], [3])


def test_truth_and_whole_numbers_are_numbers():
    assert checked(lambda *_: True, "", "") == 1.0 and checked(lambda *_: 3, "", "") == 3.0
