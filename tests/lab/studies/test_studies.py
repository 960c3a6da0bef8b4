"""Each study by itself: arms that are equal in what they must be equal in, an arm run for two steps, findings that can fail."""

import numpy as np
import pytest
import support

from minids.config import ModelConfig
from minids.lab.analysis.parameters import activated
from minids.lab.studies import attention, balance, load, mtp, race, router, segmentation, training
from minids.lab.studies.base import MODEL, configs
from minids.lab.studies.registry import STUDIES, study
from minids.lab.studies.runner import run_study
from minids.lab.studies.study import Job, Summary
from minids.lab.studies.table import table
from minids.model import DeepSeekV3
from minids.training.workers import Workers


def parameters(arm, part=""):
    declared = DeepSeekV3.declared(ModelConfig(**{**MODEL, **arm["model"]}))
    return sum(int(np.prod(p.shape)) for p in declared if part in p.name and "norm" not in p.name)


def test_attentions_have_the_same_number_of_weights():
    assert {parameters(arm, ".self_attn.") for arm in attention.STUDY.arms.values()} == {3 * 20_480}
    assert len({parameters(arm) for arm in attention.STUDY.arms.values()}) == 1


def test_segmentations_have_the_same_experts_in_all_and_at_work():
    arms = [arm["model"] for arm in segmentation.STUDY.arms.values()]
    assert {(a["n_routed_experts"] + a["n_shared_experts"]) * a["moe_intermediate_size"] for a in arms} == {12 * 64}
    assert {(a["num_experts_per_tok"] + a["n_shared_experts"]) * a["moe_intermediate_size"] for a in arms} == {3 * 64}


def test_balance_arms_differ_in_balancing_alone():
    for arm in balance.STUDY.arms.values():
        assert arm["model"].keys() <= {"balance", "seq_aux", "aux_loss_alpha", "bias_update_rule", "bias_update_speed"}
        assert set(arm) == {"model"}


@pytest.fixture(scope="module")
def small_text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for name, line in (("words", "the cat sat on the mat, and so did I. "), ("sums", "12 + 30 = 42\n")):
        (folder / f"{name}.txt").write_text(line * 200)
    return str(folder / "words.txt"), str(folder / "sums.txt")


RUNS = {
    "balance": ("bias 0.003 + sequence loss 0.0001", {"specialisation", "p_value", "domain_load", "domain_entropy"}),
    "router": ("softmax scores", {"nodes", "all_to_all_bytes"}),
    "attention": ("gqa", {"cache", "attention_parameters"}),
    "mtp": ("two modules", {"first_token", "second_token", "third_token", "second_token_accepted"}),
    "segmentation": ("halves: 1 shared + 5 of 23", {"loss_without_shared"}),
}


@pytest.mark.parametrize("name", RUNS)
def test_an_arm_runs_and_gives_its_numbers(name, small_text):
    arm, extra = RUNS[name]
    told = []
    outcome = study(name).run(study(name).arms[arm], Job(arm, 0, 2, small_text, told.append))
    assert extra | {"loss", "max_vio", "entropy", "parameters", "loss_words", "loss_sums"} <= outcome.numbers.keys()
    assert all(np.isfinite(value) for value in outcome.numbers.values())
    assert outcome.curves["step"] == [1, 2] and sum(told) == 2
    assert outcome.numbers["loss"] == pytest.approx((outcome.numbers["loss_words"] + outcome.numbers["loss_sums"]) / 2)
    if name == "balance":
        assert np.array(outcome.details["relative_load"]["words"]).shape == (2, 16)
    if name == "attention":
        assert outcome.numbers["cache"] == 2 * (24 + 16), "key heads · (key + value), in each layer"
    if name == "router":
        assert 1 <= outcome.numbers["nodes"] <= 2


def test_the_race_reads_characters_and_says_when_nanogpt_is_passed(small_text, monkeypatch):
    monkeypatch.setattr(race, "NANOGPT", 100.0)  # which any model passes at the first look
    job = Job("MTP", 0, 2, small_text[:1])
    numbers, curves, details = race.run(race.ARMS["MTP"], job)
    assert numbers["characters"] == 2 * 16 * 64 and numbers["characters_to_nanogpt"] == 16 * 64
    assert numbers["active"] < numbers["parameters"] and curves["step"] == [1, 2]
    assert details["validation"]["step"] == [1, 2] and details["validation"]["loss"][-1] == numbers["loss"]
    assert 0 < numbers["seconds_to_nanogpt"] <= numbers["seconds"]
    monkeypatch.setattr(race, "NANOGPT", 0.0)
    assert "seconds_to_nanogpt" not in race.run(race.ARMS["MTP"], job).numbers


def test_the_receipt_of_the_race_is_printed(small_text, tmp_path, monkeypatch):
    monkeypatch.setattr(race, "CHECKS", 2)
    found = run_study("race", tmp_path, (3,), 2, ("MoE",), small_text[:1], 1, say=lambda line: None)
    out = table(race.STUDY, found)
    loss = found["arms"]["MoE"]["details"]["validation"]["loss"]
    assert f"MoE, seed 3: loss {found['arms']['MoE']['runs'][0]['numbers']['loss']:.4f} after 2,048 characters" in out
    assert f"first seed: 1 {loss[0]:.3f}, 2 {loss[1]:.3f}" in out
    assert "1 thread a run" in out and f"numpy {np.__version__}" in out
    assert race.receipt({"arms": {}}) == []


def test_studies_train_with_the_threads_that_are_asked_for(small_text, monkeypatch):
    counts = []
    monkeypatch.setattr(training, "Workers", lambda model, count: counts.append(count) or Workers(model, count))
    for name, arm in (("race", "dense"), ("attention", "mha")):
        losses = []
        for threads in (1, 2):
            job = Job(arm, 0, 2, small_text, threads=threads)
            losses.append(study(name).run(study(name).arms[arm], job).numbers["loss"])
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert counts == [1, 2, 1, 2]


def test_every_arm_of_the_race_keeps_its_rules():
    for name, arm in race.ARMS.items():
        model, run = configs(arm, Job(name, 0, race.STUDY.steps), race.COMMON)
        assert activated(model, "both") <= 1_000_000, name
        assert run.steps * run.tokens_per_step == 2000 * 12 * 64 and run.context_length == 64


def test_findings_of_the_race_follow_the_numbers():
    best = {"MoE": {"loss": 1.59, "active": 9e5, "characters": 1.5e6}, "MoE, AdamW": {"loss": 1.7}, "MLA": {"loss": 1.65}}
    assert holds("race", "at most 1.60", **best) and holds("race", "Muon", **best) and holds("race", "MLA to MoE", **best)
    worse = {**best, "MoE": {"loss": 1.71, "active": 1.1e6, "characters": 1.5e6}}
    assert not any(holds("race", words, **worse) for words in ("at most 1.60", "Muon", "MLA to MoE", "1.0 million"))


def test_loads_are_kept_along_a_run(small_text, monkeypatch):
    monkeypatch.setattr(load, "POINTS", 2)
    told = []
    numbers, curves, details = load.run(load.STUDY.arms[load.BIAS], Job(load.BIAS, 0, 5, small_text, told.append))
    assert sum(told) == 5 and details["step"] == curves["step"] == [2, 4, 5], "every second step, and what is left"
    shares = np.array(details["relative_load"])
    assert shares.shape == (2, 3, 16) and np.allclose(shares.sum(axis=-1), 16, atol=0.02)
    np.testing.assert_allclose(curves["max_vio"], shares.max(axis=-1).mean(axis=0) - 1, atol=2e-3)
    assert numbers["busiest"] - 1 == pytest.approx(numbers["max_vio"]), "the last moment is all of the last quarter"
    assert numbers["idle"] == (shares[:, -1] < load.IDLE).sum(axis=-1).mean()


def test_findings_of_the_loads_follow_the_numbers():
    collapsed = {load.NO: {"idle": 3.0}}
    assert holds("load", "never work", **collapsed) and not holds("load", "never work")
    assert holds("load", "all experts at work", **collapsed)
    assert not holds("load", "all experts at work", **{load.SEQUENCE: {"idle": 1.0}})
    assert not holds("load", "as even as a loss", **{load.BIAS: {"max_vio": 0.6}})


@pytest.mark.slow
def test_two_processes_give_the_same_numbers_as_one(small_text, tmp_path):
    found = [
        run_study("attention", tmp_path / str(n), (3,), 2, ("mha", "mla"), small_text, n, say=lambda line: None) for n in (1, 2)
    ]
    assert found[0]["arms"]["mla"]["summary"] == found[1]["arms"]["mla"]["summary"]
    assert found[0]["arms"]["mha"]["runs"][0]["curves"] == found[1]["arms"]["mha"]["runs"][0]["curves"]


def test_the_shared_expert_is_silenced_in_a_copy():
    config = support.TINY.replace(n_group=1, topk_group=1)
    model = support.build(config)
    tokens, targets = support.batch(config)
    before = model.losses(tokens, targets).main
    other = segmentation.without_shared(model)
    saved = other.forward(tokens, targets)[1].blocks[1].ffn
    assert saved.shared is None and saved.routing.chosen.shape[1] == config.num_experts_per_tok + 1
    assert other.losses(tokens, targets).main != before
    assert model.losses(tokens, targets).main == before


def numbers(name, **special):
    """Summaries of every arm with 0.5 for each number, but for ``special``: arm → number → value."""
    keys = {*study(name).shown, "specialisation", "p_value", "all_to_all_bytes", "first_token", "second_token", "cache"}
    keys |= {"tokens", "characters", "second_token_accepted", "loss_without_shared", "max_vio"}
    keys |= {
        "zero-shot ppl 128",
        "tuned ppl 128",
        *(f"prescribed gradient as {arm}" for arm in ("bf16", "fp8", "fp8 per tensor")),
    }

    def summary(arm, key):
        value = special.get(arm, {}).get(key, 0.5)
        return Summary(value, 0.0, (value,) * 3)

    return {arm: {key: summary(arm, key) for key in keys} for arm in study(name).arms}


def holds(name, words, **special):
    (found,) = [f for f in study(name).findings(numbers(name, **special)) if words in f.claim]
    assert found.numbers
    return found.holds


@pytest.mark.parametrize("name", STUDIES)
def test_findings_can_be_drawn_from_any_numbers(name):
    for finding in study(name).findings(numbers(name)):
        assert finding.claim and finding.numbers and finding.holds in (True, False, None)


def test_findings_of_balance_follow_the_numbers():
    even = {"bias 0.01": {"max_vio": 0.1, "loss": 0.4, "p_value": 0.001}}
    assert holds("balance", "at or below 0.15", **even) and not holds("balance", "at or below 0.15")
    assert holds("balance", "bias alone", **{**even, "batch loss 0.3": {"loss": 0.45}})
    assert not holds("balance", "bias alone", **{**even, "batch loss 0.3": {"loss": 0.3}})
    assert holds("balance", "different experts", **even)
    assert not holds("balance", "different experts", **{"bias 0.01": {**even["bias 0.01"], "p_value": 0.02}})


def test_findings_of_the_others_follow_the_numbers():
    assert holds("attention", "MLA's loss", mla={"loss": 0.4}) and not holds("attention", "MLA's loss", mla={"loss": 0.6})
    for words in ("is not above that without", "is not above that of the best other"):
        assert holds("mtp", words) is None
        assert holds("mtp", words, **{"weight 0.3": {"loss": 0.4}}) and not holds("mtp", words, **{"weight 0.3": {"loss": 0.6}})
    halves = "halves: 1 shared + 5 of 23"
    assert holds("segmentation", "does not replace", **{halves: {"loss_without_shared": 0.9}})
    assert not holds("segmentation", "does not replace")
    assert holds("router", "one node of four is worse", **{"1 of 4 nodes": {"loss": 0.6}})
    assert not holds("router", "one node of four is worse")
    assert holds("router", "a shared expert is better", **{router.NONE_SHARED: {"loss": 0.6}})
    assert router.STUDY.arms["softmax scores"]["model"]["scoring_func"] == "softmax" and mtp.WEIGHTS == (0.1, 0.3, 1.0)
