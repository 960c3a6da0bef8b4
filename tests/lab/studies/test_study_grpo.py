"""The study of GRPO: the teacher's lines, what counts as right, how an arm is measured, and arms run for two steps."""

import numpy as np
import pytest
from test_studies import holds

from minids.errors import MinidsError
from minids.lab.mistakes.policy import divergence_as_a_difference_of_logs
from minids.lab.studies import erring_sums, grpo, post_training
from minids.lab.studies.study import Job
from minids.training.reserved import reserved


def test_the_teacher_errs_as_often_as_it_says_and_never_reads_the_exam():
    lines = erring_sums.ErringSums(1, 64, np.random.default_rng(0))
    drawn = [lines.line() for _ in range(4000)]
    wrong = at_once = 0
    for line in drawn:
        asked, answer = line[: line.index("=") + 1], line[line.index("=") + 1 :]
        a, b = (int(n) for n in asked.strip("\n=").split("+"))
        assert not reserved(a, "+", b)
        result = int(answer.rpartition("=")[2])
        assert 20 <= result <= 198 and len(answer) <= erring_sums.LONGEST
        wrong += result != a + b
        at_once += "=" not in answer
        assert (erring_sums.right(asked, answer) == 1) == (result == a + b)
        if "=" in answer:
            tens, ones = (int(n) for n in answer.partition("=")[0].split("+"))
            assert tens + ones == a + b and tens % 10 == 0, "the steps are always right"
    assert wrong / len(drawn) == pytest.approx(erring_sums.WRONG, abs=0.03)
    assert at_once / len(drawn) == pytest.approx(erring_sums.AT_ONCE, abs=0.03)


def test_right_is_the_end_of_a_whole_line():
    right = erring_sums.right
    assert right("\n47+25=", "72\n") == right("\n47+25=", "60+12=72\n") == right("\n47+25=", "1=72\n") == 1
    assert right("\n47+25=", "72") == right("\n47+25=", "172\n") == right("\n47+25=", "72=60\n") == right("\n47+25=", "") == 0


def test_batches_are_lines_with_what_follows():
    tokens, targets = erring_sums.ErringSums(3, 40, np.random.default_rng(1)).next()
    assert tokens.shape == targets.shape == (3, 40) and (tokens[:, 1:] == targets[:, :-1]).all()
    for row in tokens:
        text = erring_sums.tokenizer().decode(row)
        assert text[0] == "\n" and "\n\n" not in text and all("=" in line for line in text.split("\n")[1:-1])


def test_questions_of_the_exam_are_others_than_those_learned_from():
    task = erring_sums.task()
    assert len(task.held_out) >= post_training.QUESTIONS >= 500
    assert not {tuple(q) for q in task.questions} & {tuple(q) for q in task.held_out}
    assert max(map(len, task.held_out)) + erring_sums.LONGEST <= post_training.MODEL["max_position_embeddings"]


@pytest.fixture
def small(monkeypatch):
    """A base of two steps, and rewards that such a base can earn."""
    monkeypatch.setattr(post_training, "QUESTIONS", 10)
    monkeypatch.setattr(post_training, "AT_ONCE", 8)
    monkeypatch.setattr(grpo, "BASE", grpo.BASE | {"steps": 2, "batch_size": 2})
    easy = erring_sums.task()._replace(reward=lambda question, answer: float(len(answer.strip("\n"))))
    monkeypatch.setattr(post_training, "task", lambda: easy)
    monkeypatch.setattr(grpo, "right", lambda question, answer: 1.0)
    monkeypatch.setattr(grpo, "POLICY", grpo.POLICY | {"questions": 4, "group": 2})


@pytest.mark.parametrize("arm", [grpo.BEFORE, grpo.IMITATION, grpo.REJECTION, grpo.LOGS, grpo.FREE])
def test_an_arm_runs_and_gives_its_numbers(arm, small):
    told = []
    outcome = grpo.run(grpo.ARMS[arm], Job(arm, 0, 2, tell=told.append))
    assert {"pass@1", "pass@8", "greedy", "entropy", "length", "divergence", "acceptance"} <= outcome.numbers.keys()
    assert all(np.isfinite(value) for value in outcome.numbers.values()) and sum(told) == 2
    assert (outcome.numbers["divergence"] == 0) == (arm == grpo.BEFORE), "the base is where it was, the others are not"
    assert ("flipped" in outcome.numbers) == (arm == grpo.FREE)
    if "policy" in grpo.ARMS[arm]:
        assert outcome.curves["step"] == [1, 2] and len(outcome.curves["reward"]) == 2


def test_the_base_is_made_once_and_left_as_it_was(small):
    grpo.run(grpo.ARMS[grpo.NO_MTP], Job(grpo.NO_MTP, 0, 2))
    made = post_training.base.cache_info()
    first = grpo.run(grpo.ARMS[grpo.BEFORE], Job(grpo.BEFORE, 0, 2)).numbers
    assert post_training.base.cache_info().misses == made.misses
    post_training.base.cache_clear()
    again = grpo.run(grpo.ARMS[grpo.BEFORE], Job(grpo.BEFORE, 0, 2)).numbers
    same = first.keys() - {"seconds_learning"}
    assert {name: first[name] for name in same} == {name: again[name] for name in same}


def test_guesses_are_kept_where_module_and_model_agree(monkeypatch):
    """Against the definition, written out token by token."""
    rng = np.random.default_rng(0)
    p, q = (rng.dirichlet(np.ones(5), (2, n)) for n in (6, 5))

    class Model:
        mtp = ("one",)

        def mtp_logits(self, tokens):
            return [np.log(q)]

    counted = np.zeros((2, 6), bool)
    counted[0, 2:5] = counted[1, 3] = True  # predicted there: three tokens, of which a module guesses the last two; one token
    found = post_training.acceptance(Model(), np.zeros((2, 6), int), counted, p)
    wanted = [sum(min(p[0, at, v], q[0, at - 1, v]) for v in range(5)) for at in (3, 4)]
    np.testing.assert_allclose(found, wanted)


def test_the_divergence_is_that_of_the_definition():
    p, q = np.array([[0.5, 0.5, 0.0]]), np.array([[0.25, 0.5, 0.25]])
    np.testing.assert_allclose(post_training._divergence(p, q), [0.5 * np.log(2)])


def test_the_wrong_estimator_is_that_of_the_museum():
    kept = {}
    divergence_as_a_difference_of_logs(lambda owner, **wrong: kept.update(wrong))
    log_q = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_array_equal(grpo.difference_of_logs(log_q), kept["k3"](log_q))


def test_other_text_is_refused_and_half_a_run_is_none(small, monkeypatch):
    with pytest.raises(MinidsError, match="leave data out"):
        grpo.run({}, Job(grpo.BEFORE, 0, 2, data=("mine.txt",)))
    stops = post_training.PolicyRun.next
    monkeypatch.setattr(post_training.PolicyRun, "next", lambda self: (self.ask_to_stop(), stops(self))[1])
    with pytest.raises(KeyboardInterrupt):
        grpo.run(grpo.ARMS[grpo.GRPO], Job(grpo.GRPO, 0, 2))


def test_findings_of_grpo_follow_the_numbers():
    good = {grpo.GRPO: {"pass@1": 0.95, "greedy": 0.99, "length": 9.0, "entropy": 0.1, "acceptance": 0.9}}
    assert holds("grpo", "passes 90 %", **good) and holds("grpo", "passes 92 %", **good)
    assert not holds("grpo", "passes 90 %") and holds("grpo", "below 65 %")
    assert not holds("grpo", "below 65 %", **{grpo.IMITATION: {"pass@1": 0.7}})
    for words in ("more right than pretraining on", "more right than rejection", "longer", "entropy falls", "than without"):
        assert holds("grpo", words, **good), words
    assert holds("grpo", "choices flip") and not holds("grpo", "choices flip", **{grpo.FREE: {"flipped": 0.0}})
    assert holds("grpo", "Keep Routing changes") and not holds("grpo", "Keep Routing changes", **{grpo.FOUR: {"pass@1": 0.6}})
    near = {grpo.HELD: {"divergence": 0.1}}
    assert holds("grpo", "nearer to the base", **near) and holds("grpo", "difference of logs", **near)


def test_arms_of_grpo_draw_as_many_answers():
    for arm in grpo.ARMS.values():
        if "policy" in arm:
            policy = grpo.POLICY | arm["policy"]
            assert policy["questions"] * policy["group"] == grpo.POLICY["questions"] * grpo.POLICY["group"]
