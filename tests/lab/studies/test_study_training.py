"""The training loop of the studies: paired batches, the same bits again, validation that leaves the model alone."""

import numpy as np
import pytest

from minids.checkpoint.tokenizer import byte_tokenizer
from minids.config import TrainConfig
from minids.errors import MinidsError
from minids.lab.studies import base
from minids.lab.studies.study import Job
from minids.lab.studies.training import Curves, text, train, validate
from minids.training.batches import TokenStream
from minids.training.corpus import Document
from minids.training.loop import Diverged
from minids.training.text import Text

MODEL, _ = base.configs(
    {"model": dict(hidden_size=16, num_hidden_layers=2, intermediate_size=16, moe_intermediate_size=8)}, Job("x", 0, 1)
)
RUN = TrainConfig(steps=4, batch_size=2, context_length=16, eval_tokens=100, learning_rate=1e-2)


@pytest.fixture(scope="module")
def rhymes() -> Text:
    tokenizer = byte_tokenizer()

    def stream(words):
        return TokenStream.encode([Document("x", str(i), words.encode() * 20) for i in range(3)], tokenizer)

    held_out = {"rhyme": stream("one, two, three; "), "sums": stream("1 + 2 = 3\n")}
    return Text(tokenizer, stream("one, two, three, four, five; 1 + 1 = 2\n"), held_out)


def trained(rhymes, seed=0, config=MODEL, threads=1, run=RUN):
    seen = []
    model = train(config, run, rhymes, seed, lambda step, losses, model: seen.append((step, losses)), threads=threads)
    return model, seen


def test_the_same_seed_gives_the_same_bits_and_another_seed_another_run(rhymes):
    (a, first), (b, second), (c, _) = (trained(rhymes, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.parameters.values, b.parameters.values)
    assert [step for step, _ in first] == [1, 2, 3, 4]
    assert [losses.main for _, losses in first] == [losses.main for _, losses in second]
    assert not np.array_equal(a.parameters.values, c.parameters.values)


def test_arms_of_other_sizes_see_the_same_text_in_the_same_order(rhymes, monkeypatch):
    from minids.model import DeepSeekV3

    seen = []
    original = DeepSeekV3.forward_backward

    def watched(self, tokens, *rest, **named):
        seen.append(tokens.copy())
        return original(self, tokens, *rest, **named)

    monkeypatch.setattr(DeepSeekV3, "forward_backward", watched)
    trained(rhymes, config=MODEL)
    trained(rhymes, config=MODEL.replace(hidden_size=24, num_hidden_layers=3))
    np.testing.assert_array_equal(seen[:4], seen[4:])


def test_it_learns_and_moves_the_bias_by_the_schedules_speed(rhymes):
    model, seen = trained(rhymes, config=MODEL.replace(bias_update_speed=0.01), run=RUN.replace(steps=30))
    assert seen[-1][1].main < 0.6 * seen[0][1].main
    bias = model.moe_layers[0].bias
    assert np.abs(bias).max() > 0.01 and np.allclose(bias / 0.01, np.round(bias / 0.01), atol=1e-4)


def test_a_loss_that_is_no_number_is_told(rhymes):
    with pytest.raises(Diverged, match="step"), np.errstate(all="ignore"):
        trained(rhymes, run=RUN.replace(steps=40, learning_rate=1e30, clip_norm=0.0, warmup_steps=0))


def test_validation_reads_as_much_of_each_domain_and_leaves_the_model_alone(rhymes):
    model, _ = trained(rhymes)
    values, bias = model.parameters.values.copy(), model.moe_layers[0].bias.copy()
    found = validate(model, rhymes, RUN)
    whole = 100 // 16 * 16
    for routed in found.routed.values():
        assert routed.shape == (whole // 16, 1, 16) and (routed.sum(axis=(1, 2)) == 16 * MODEL.num_experts_per_tok).all()
    assert found.counts.sum() == 2 * whole * MODEL.num_experts_per_tok
    assert found.specialisation_test().statistic > 0
    assert found.mean_loss == pytest.approx(np.mean(list(found.loss.values())))
    stream = rhymes.held_out["sums"].tokens
    tokens, targets = (stream[i : i + whole].astype(np.int32).reshape(-1, 16) for i in (0, 1))
    assert found.loss["sums"] == pytest.approx(model.losses(tokens, targets, mtp=False).main, rel=1e-5)
    np.testing.assert_array_equal(model.parameters.values, values)
    np.testing.assert_array_equal(model.moe_layers[0].bias, bias)


def test_validation_text_shorter_than_a_window_is_refused(rhymes):
    model, _ = trained(rhymes)
    with pytest.raises(MinidsError, match="context_length"):
        validate(model, rhymes, RUN.replace(context_length=5000))


def test_curves_are_means_since_the_point_before():
    curves = Curves(steps=10, points=5)
    for step in range(1, 11):
        curves.add(step, loss=float(step))
    assert curves.values == {"step": [2, 4, 6, 8, 10], "loss": [1.5, 3.5, 5.5, 7.5, 9.5]}
    short = Curves(steps=3, points=40)
    for step in range(1, 4):
        short.add(step, loss=float(step))
    assert short.values["step"] == [1, 2, 3]


def test_text_keeps_domains_apart(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"{name} rhyme of its own, again and again.\n\n" * 50)
    found = text((str(tmp_path / "a.txt"), str(tmp_path / "b.txt")))
    assert list(found.held_out) == ["a", "b"]
    assert b"b rhyme" not in found.tokenizer.decode(found.held_out["a"].tokens.tolist()).encode()
