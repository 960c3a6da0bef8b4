"""The exam: questions that no training text holds, judged as greedy generation would be."""

import re

import numpy as np
import pytest

import minids
from minids.checkpoint.tokenizer import byte_tokenizer, train_bpe
from minids.config import ModelConfig
from minids.inference.generate import generate
from minids.training import exam
from minids.training.corpus import load_corpus
from minids.training.exam import Question, questions, right
from minids.training.reserved import reserved

KINDS = ["one-digit sums", "two-digit sums", "two-digit differences", "products", "word problems"]


@pytest.fixture(scope="module")
def training():
    halves = load_corpus("builtin").split(0.1)
    return [document.text for document in halves[0].of("arithmetic")]


@pytest.fixture(scope="module")
def asked(training):
    return questions(training)


def test_every_kind_has_five_hundred_different_questions_that_come_again(training, asked):
    assert list(asked) == KINDS
    assert all(len({question.prompt for question in some}) == 500 for some in asked.values())
    assert questions(training) == asked


def test_no_prompt_occurs_in_the_training_text(training, asked):
    text = b"\n".join(training).decode()
    for question in (question for some in asked.values() for question in some):
        assert question.prompt not in text
    for kind in KINDS[1:]:
        asked_for = {question.prompt.partition("\n\n")[2].strip() for question in asked[kind]}
        assert not asked_for & set(text.split("\n")), f"the training text holds questions of {kind}"


def test_no_two_digit_problem_that_is_asked_is_worked_out_in_the_training_text(training, asked):
    worked_out = set(re.findall(r"(\d+ . \d+) =", b"\n".join(training).decode()))
    for kind, operation in zip(KINDS[1:4], "+-*", strict=True):
        for question in asked[kind]:
            a, b = map(int, re.match(rf"(\d+) [{operation}] (\d+) =", question.answer).groups())
            assert a > 9 and (b > 9 or operation == "*")
            assert reserved(a, operation, b)
            assert f"{a} {operation} {b}" not in worked_out
            if operation == "+":
                assert f"{b} + {a}" not in worked_out


def test_answers_are_right(asked):
    for question in (question for some in asked.values() for question in some):
        chains = re.findall(r"[\d +*/=-]+=[\d +*/=-]*\d", question.prompt.split("\n")[-1] + question.answer)
        for chain in chains:
            assert len({eval(side) for side in chain.split("=")}) == 1, chain


def test_a_text_without_sums_is_not_examined():
    assert questions([b"def f(x):\n    return x + 1\n" * 100]) == {}
    only = b"".join(b"What is %d + %d?\n" % (a, a + 1) for a in range(10, 50))
    assert list(questions([only + b"x = 1"])) == ["two-digit sums"]


def test_few_sums_are_reserved_and_none_of_one_digit():
    two_digit = [reserved(a, operation, b) for operation in "+-" for a in range(10, 100) for b in range(10, a + 1)]
    assert 0.08 < np.mean(two_digit) < 0.12
    assert not any(reserved(a, operation, b) for operation in "+-*/" for a in range(10) for b in range(10))
    assert all(reserved(a, "+", b) == reserved(b, "+", a) for a in range(10, 60) for b in range(10, 60))


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_right_is_what_greedy_generation_decides(tokenizer):
    """The answer is what the model itself writes up to a line's end; another answer is wrong, and so is an answer cut short."""
    text = b"3 + 4 = 7\n\nWhat is 3 + 4?\n7.\n" * 30
    tokens = byte_tokenizer() if tokenizer == "bytes" else train_bpe([text], 300)
    config = ModelConfig.preset("tiny", vocab_size=tokens.vocab_size, num_hidden_layers=2, hidden_size=32)
    model = minids.DeepSeekV3(config.replace(initializer_range=0.3), seed=3)
    model.tokenizer = tokens
    head = model.head.weight.value
    head[[*range(32), *range(128, 258)]] = 0  # it writes printable ASCII
    judged = 0
    for prompt in (f"{number} + {number * 7} = " for number in range(20)):
        start = [*tokens.beginning, *tokens.encode(prompt)]
        new = generate(model, start, 6).tolist()
        answer = tokens.decode(new[:5])
        if new[5] in new[:5] or tokens.encode(answer).tolist() != new[:5] or answer.rstrip() != answer:
            continue
        judged += 1
        head[[10, new[5]]] = head[[new[5], 10]]  # what it wrote next is now the line's end
        assert generate(model, start, 6).tolist() == [*new[:5], 10]
        others = [Question(prompt, text) for text in (answer, answer[:-1], answer + "!", "", "7")]
        assert right(model, others).tolist() == [True, False, False, False, False]
        head[[10, new[5]]] = head[[new[5], 10]]
        assert not right(model, others).any(), "the line is not ended"
    assert judged >= 3


def test_one_pass_over_many_lengths_judges_each_alone(asked):
    model = minids.DeepSeekV3(ModelConfig.preset("tiny", num_hidden_layers=2, hidden_size=32), seed=3)
    model.tokenizer = byte_tokenizer()
    some = [question for kind in KINDS for question in asked[kind][:8]]
    head = model.head.weight.value
    head[:] = 0
    head[ord("1")] = 1e-3  # always "1", and never the end of a line
    assert not right(model, some).any()
    assert exam.exact_match(model, {"sums": some}) == {"sums": 0.0}


def test_only_some_sums_are_asked_on_the_way(training, asked):
    """And they are the first of the exam's, so that their share is an estimate of the exam's."""
    some = exam.sums(training)
    assert list(some) == ["one-digit sums", "two-digit sums"]
    assert all(some[kind] == asked[kind][: exam.ON_THE_WAY] for kind in some)
