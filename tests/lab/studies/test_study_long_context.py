"""The long-context study: arms change angles and softmax as they say, what is measured is what it says, findings can fail."""

import numpy as np
import pytest

from minids.config import ModelConfig
from minids.lab.studies import long_context as study
from minids.lab.studies.long_context import INTERPOLATION, NO_MSCALE, NO_RAMP, NONE, STEP, YARN
from minids.lab.studies.study import Job, Summary
from minids.layers.positions import softmax_scale
from minids.model import DeepSeekV3
from minids.ops import yarn

SMALL = {**study.COMMON["model"], "hidden_size": 16, "intermediate_size": 16, "moe_intermediate_size": 8}


@pytest.fixture(scope="module")
def trained():
    return DeepSeekV3(ModelConfig(**SMALL), 0)


@pytest.fixture(scope="module")
def small_text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for part in range(12):  # documents, of which some are held out
        (folder / f"{part}.txt").write_text(f"{part} green bottles hanging on the wall, " * 60)
    return (str(folder),)


def angles_per_token(model):
    """(d_r/2,) radians that one position turns each pair by."""
    found = model.rotary(study.LONGEST)
    return np.arctan2(found.sin[1], found.cos[1])


def test_arms_differ_in_angles_and_scale_as_they_say(trained):
    plain = yarn.plain_frequencies(16, trained.config.rope_theta)
    turns = plain * study.TRAINED / (2 * np.pi)
    sharper = yarn.mscale(study.FACTOR, 1.0) ** 2
    models = {arm: study.extended(trained, settings) for arm, settings in study.ARMS.items()}
    rate = {arm: angles_per_token(model) / plain for arm, model in models.items()}
    scale = {arm: models[arm].blocks[0].attention.scale / softmax_scale(trained.config) for arm in models}
    for arm, wanted in {NONE: 1, INTERPOLATION: 1, NO_RAMP: sharper, STEP: sharper, NO_MSCALE: 1, YARN: sharper}.items():
        assert scale[arm] == pytest.approx(wanted), arm
    np.testing.assert_allclose(rate[NONE], 1, rtol=1e-4)
    for arm in (INTERPOLATION, NO_RAMP):
        np.testing.assert_allclose(rate[arm], 1 / study.FACTOR, rtol=1e-4)
    np.testing.assert_allclose(rate[STEP], np.where(turns > 1, 1, 1 / study.FACTOR), rtol=1e-4)
    np.testing.assert_allclose(rate[NO_MSCALE], rate[YARN])
    between = (rate[YARN] > 1.01 / study.FACTOR) & (rate[YARN] < 0.99)
    assert rate[YARN][0] == pytest.approx(1, rel=1e-4) and between.any(), "the ramp has nothing on it"


def test_an_arm_shares_no_memory_with_the_trained_model(trained):
    before = trained.parameters.values.copy(), trained.moe_layers[0].bias.copy()
    model = study.extended(trained, study.ARMS[YARN])
    np.testing.assert_array_equal(model.parameters.values, trained.parameters.values)
    model.parameters.values += 1
    model.moe_layers[0].bias[...] += 1
    np.testing.assert_array_equal(trained.parameters.values, before[0])
    np.testing.assert_array_equal(trained.moe_layers[0].bias, before[1])


def test_interpolation_gives_at_position_si_what_the_model_gave_at_i(trained):
    model = study.extended(trained, study.ARMS[INTERPOLATION])
    stretched, plain = model.rotary(512), trained.rotary(128)
    np.testing.assert_array_equal(stretched.cos[:: study.FACTOR], plain.cos)
    np.testing.assert_array_equal(stretched.sin[:: study.FACTOR], plain.sin)


def test_nats_by_position_are_the_models_loss(trained, small_text, monkeypatch):
    monkeypatch.setitem(study.COMMON["train"], "eval_tokens", 1024)
    corpus = study.text(small_text)
    (stream,) = corpus.held_out.values()
    nats = study.by_position(trained, corpus)
    assert nats.shape == (study.LONGEST,)
    tokens, targets = (stream.tokens[i : i + 1024].astype(np.int32).reshape(2, 512) for i in (0, 1))
    assert nats.mean() == pytest.approx(trained.losses(tokens, targets, mtp=False).main, rel=1e-5)
    first = trained.losses(tokens[:, :1], targets[:, :1], mtp=False).main
    assert nats[0] == pytest.approx(first, rel=1e-5), "position 0 sees one token"


def test_a_run_measures_both_stages_and_trains_the_common_model_once(small_text, monkeypatch):
    monkeypatch.setitem(study.COMMON, "model", SMALL)
    monkeypatch.setitem(study.COMMON["train"], "eval_tokens", 512)
    for name, few in dict(HAYSTACKS=2, LENGTHS=(128, 512), DEPTHS=(0.0, 0.5)).items():
        monkeypatch.setattr(study, name, few)
    study._trained.cache_clear()
    told, outcomes = [], {}
    for arm in (NONE, YARN):
        outcomes[arm] = study.run(study.ARMS[arm], Job(arm, 0, 6, small_text, told.append))
    assert study._trained.cache_info().hits == 1 and sum(told) == 2 * 6
    study._trained.cache_clear()
    none, extended = (outcomes[arm].numbers for arm in (NONE, YARN))
    assert none.keys() == extended.keys() and len(none) == 2 * (8 + 2 * 3)
    assert all(np.isfinite(value) for value in none.values()) and set(study.STUDY.shown) <= none.keys()
    assert none != extended, "YaRN made no difference"
    assert none["zero-shot ppl 512"] != none["tuned ppl 512"], "no further training happened"
    assert outcomes[NONE].curves["step"] == [1, 2] and outcomes[NONE].details["before"]["step"] == [1, 2, 3, 4]
    again = study.run(study.ARMS[YARN], Job(YARN, 0, 6, small_text))
    study._trained.cache_clear()
    assert again.numbers == extended, "the same arguments gave other numbers"


def numbers(**special):
    """Every number of every arm 0.5, but for ``special``: arm → (what, stage index, at) → value."""
    keys = [(what, stage, at) for what in ("ppl", "needle") for stage in (0, 1) for at in (128, 512)]

    def summary(arm, key):
        value = special.get(arm, {}).get(key, 0.5)
        return Summary(value, 0.0, (value,) * 3)

    return {
        arm: {study.name(what, study.STAGES[stage], at): summary(arm, (what, stage, at)) for what, stage, at in keys}
        for arm in study.ARMS
    }


def holds(words, special):
    (finding,) = [f for f in study.findings(numbers(**special)) if words in f.claim]
    assert finding.numbers
    return finding.holds


def test_findings_follow_the_numbers():
    better, worse = ({YARN: {("ppl", 0, 512): value, ("needle", 0, 512): 1 - value}} for value in (0.2, 0.8))
    for words in (
        "than no extension",
        "than interpolation",
        "the ramp helps text, zero",
        "mscale helps needles",
        "most needles",
    ):
        words = words if words != "than no extension" else "zero-shot, YaRN predicts text"
        assert holds(words, better) and not holds(words, worse) and not holds(words, {}), words
    assert holds("within the 128 tokens of training", {NONE: {("needle", 0, 128): 0.9}})
    assert not holds("within the 128 tokens of training", {NONE: {("needle", 0, 128): 0.89}})
    assert holds("without an extension, text", {NONE: {("ppl", 0, 512): 0.6}})
    assert holds("tuned, YaRN finds", {YARN: {("needle", 1, 512): 0.95}})
    assert holds("the price, zero-shot", {YARN: {("ppl", 0, 128): 0.6}}) and not holds("the price, zero-shot", {})
    assert holds("the price is still", {YARN: {("ppl", 1, 128): 0.6}}) and not holds("the price is still", {})
