"""The studies of batch ramp, averaged weights and QK-Clip: an arm of each run for a few steps, and findings that can fail."""

import numpy as np
import pytest
import support
from test_studies import holds, small_text  # noqa: F401  the fixture

from minids.checkpoint.tokenizer import byte_tokenizer
from minids.config import ModelConfig
from minids.lab.studies import average, batch_ramp, fp8_scaling, qk_clip, token_boundary
from minids.lab.studies.study import Job
from minids.model import DeepSeekV3
from minids.ops import attention
from minids.training.corpus import Corpus, Document


def test_arms_of_the_ramp_see_the_same_tokens(small_text):  # noqa: F811
    tokens, told = {}, []
    for arm, settings in batch_ramp.STUDY.arms.items():
        numbers = batch_ramp.run(settings, Job(arm, 0, 5, small_text, told.append)).numbers
        tokens[arm] = numbers["tokens"]
        assert np.isfinite(numbers["loss"])
    assert tokens["constant"] == 5 * 10 * 128
    assert all(abs(each / tokens["constant"] - 1) <= 0.2 for each in tokens.values()), "a step or so apart in so short a run"
    assert sum(told) == 3 * 5
    assert holds("batch-ramp", "V3's ramp", **{batch_ramp.RAMP: {"loss": 0.4}})
    assert holds("batch-ramp", "three tenths", **{batch_ramp.LONG: {"loss": 0.6}}) is False


def test_full_runs_of_the_ramp_see_the_same_tokens_to_one_per_cent():
    from minids.lab.studies.base import configs
    from minids.training.batch_ramp import steps_for, tokens_before

    seen = []
    for settings in batch_ramp.STUDY.arms.values():
        _, run = configs(settings, Job("", 0, 300), batch_ramp.STUDY.common)
        run = run.replace(steps=steps_for(300 * run.tokens_per_step, run))
        seen.append(tokens_before(run.steps, run))
    assert max(seen) <= 1.01 * min(seen)


def test_the_average_is_looked_at_where_the_plateau_ends(small_text):  # noqa: F811
    told = []
    outcome = average.run(average.STUDY.arms[average.ADAMW], Job(average.ADAMW, 0, 6, small_text, told.append))
    assert sum(told) == 6 and set(average.STUDY.shown) == outcome.numbers.keys()
    assert all(np.isfinite(value) for value in outcome.numbers.values())
    assert len({outcome.numbers[name] for name in ("plateau", "average 0.8", "average 0.98", "decayed")}) == 4


def test_findings_of_the_average_follow_the_numbers():
    adamw = {"adamw": {"average 0.9": 0.3, "decayed": 0.2}}
    assert holds("average", "adamw: the averaged weights", **adamw)
    assert holds("average", "adamw: the average's loss is nearer", **adamw)
    assert holds("average", "adamw: the loss after the decay is lower still", **adamw)
    assert not holds("average", "muon: the averaged weights", **adamw), "all alike there"
    far = {"adamw": {"average 0.9": 0.1, "decayed": 0.4}}
    assert holds("average", "adamw: the average's loss is nearer", **far) is False


@pytest.mark.parametrize("arm", [qk_clip.ADAMW, qk_clip.CLIPPED])
def test_an_arm_of_qk_clip_runs(arm, small_text):  # noqa: F811
    settings = qk_clip.STUDY.arms[arm]
    if arm == qk_clip.CLIPPED:
        settings = settings | {"train": settings["train"] | {"qk_clip": 1e-4}}
    outcome = qk_clip.run(settings, Job(arm, 0, 3, small_text))
    assert set(qk_clip.STUDY.shown) == outcome.numbers.keys() and outcome.numbers["rotary_share"] > 0
    assert outcome.curves["step"] == [1, 2, 3] and len(outcome.curves["largest_logit"]) == 3
    if arm == qk_clip.CLIPPED:
        assert outcome.numbers["largest_logit"] < 0.05


def test_the_rotary_share_is_that_of_the_variance_of_logits():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 9, 3, size)) for size in (6, 6, 2))
    k[..., :4] = 0  # no content: all of the spread is rotary
    support.assert_close(qk_clip.rotary_share(q, k, 4), np.ones((2, 3)), 1e-12)
    k[..., :4] = rng.normal(size=k[..., :4].shape)
    logits = np.log(attention.forward(q, k, v, 1.0)[1].probs[:, :, 0, -1])  # (2, 3, 9), up to a constant
    rotary = np.einsum("shd,sjhd->shj", q[:, -1, :, 4:], k[..., 4:]).var(axis=-1)
    support.assert_close(qk_clip.rotary_share(q, k, 4), rotary / logits.var(axis=-1), 1e-9)


def test_findings_of_qk_clip_follow_the_numbers():
    grown = {qk_clip.MUON: {"largest_logit": 20.0, "rms W^QR": 0.9}, qk_clip.CLIPPED: {"largest_logit": 10.0}}
    assert holds("qk-clip", "logits grow larger", **grown) and holds("qk-clip", "holds them at about", **grown)
    assert holds("qk-clip", "rotary queries' weights", **grown) and not holds("qk-clip", "rotary queries' weights")
    assert not holds("qk-clip", "holds them at about", **{qk_clip.CLIPPED: {"largest_logit": 30.0}})
    assert not holds("qk-clip", "loss with QK-Clip", **{qk_clip.CLIPPED: {"loss": 0.6}})


def test_an_arm_of_token_boundary_runs(tmp_path):
    (tmp_path / "code.txt").write_text("def f(x):\n    return [x, 1]\nword\n" * 200)
    data = (str(tmp_path / "code.txt"),)
    numbers = {
        arm: token_boundary.run(token_boundary.STUDY.arms[arm], Job(arm, 0, 2, data)).numbers
        for arm in (token_boundary.APART, token_boundary.SPLIT)
    }
    for arm in numbers.values():
        assert set(token_boundary.STUDY.shown) <= arm.keys() and all(map(np.isfinite, arm.values()))
        assert 0 < arm["break"] < 1
    assert numbers[token_boundary.APART]["joining_tokens"] == 0 < numbers[token_boundary.SPLIT]["joining_tokens"]


def test_prompts_end_in_a_mark_before_a_line_break():
    line = b"def f(x):\n    return [x, 1]\nword\n"
    found = token_boundary.prompts(Corpus("test", (Document("code", "1", line * 20),)))
    assert found and {text[-1] for text in found} == {":", "]"}
    assert all(text.encode() + b"\n" in line * 20 and len(text) >= token_boundary.BEFORE for text in found)


def test_the_probability_of_a_break_is_that_of_all_tokens_that_begin_with_one():
    tokenizer = byte_tokenizer()
    model = DeepSeekV3(ModelConfig.preset("tiny", num_hidden_layers=1, first_k_dense_replace=1, num_nextn_predict_layers=0))
    texts = ["a:", "longer than that."]
    for text, p in zip(texts, token_boundary.breaks(model, tokenizer, texts), strict=True):
        logits = model.logits(np.array([[*text.encode()]]))[0, -1].astype(np.float64)
        wanted = np.exp(logits) / np.exp(logits).sum()
        support.assert_close(p, wanted[10] + wanted[13], 1e-5)


@pytest.mark.parametrize("arm", [fp8_scaling.FP32, fp8_scaling.BF16, fp8_scaling.DELAYED])
def test_an_arm_of_fp8_scaling_runs(arm, small_text):  # noqa: F811
    numbers = fp8_scaling.run(fp8_scaling.STUDY.arms[arm], Job(arm, 0, 2, small_text)).numbers
    assert all(map(np.isfinite, numbers.values()))
    if arm == fp8_scaling.FP32:
        rounding = {other: numbers[f"prescribed gradient as {other}"] for other in ("bf16", "fp8")}
        assert 0 < rounding["bf16"] < rounding["fp8"] / 4


def test_findings_of_fp8_scaling_follow_the_numbers():
    shared = {f"prescribed gradient as {arm}": value for arm, value in (("bf16", 0.01), ("fp8", 0.1), ("fp8 per tensor", 0.2))}
    good = {fp8_scaling.FP32: {"loss": 0.5, **shared}}
    assert holds("fp8-scaling", "BF16's gradient is nearer", **good) and holds("fp8-scaling", "in tiles nearer", **good)
    assert holds("fp8-scaling", "fp8 delayed ends within", **good)
    bad = {**good, fp8_scaling.DELAYED: {"loss": 0.6}}
    assert not holds("fp8-scaling", "fp8 delayed ends within", **bad) and holds(
        "fp8-scaling", "delayed scale ends above", **bad
    )
