"""What notebooks 5 to 8 measure beside their cells: the text of the pages says these things, so they are held here."""

import numpy as np
import pytest

from minids.lab import notebook
from minids.lab.lessons import balance, experts, latent, mtp
from minids.lab.plots import latent as drawn
from minids.lab.studies.store import results


def test_absorbing_is_less_work_below_the_border_and_more_above():
    for latent_size, border in ((512, 171), (1024, 146)):
        for new, pays in ((border - 20, True), (border + 20, False)):
            work = {form: drawn._work(form, new, 65_536, latent_size) for form in ("expanded", "absorbed")}
            assert (work["absorbed"] < work["expanded"]) == pays


def test_the_rotary_share_is_that_of_the_scores(monkeypatch):
    model = notebook.model(np.float64)
    tokens, _ = notebook.read(model)
    shares = latent.rotary_shares(model, tokens)
    assert shares.shape == (4, 4) and shares.min() > 0.97 and shares.max() < 1
    monkeypatch.setattr(model.blocks[1].attention.q_b_proj.weight, "value", _without_rotary(model))
    shares = latent.rotary_shares(model, tokens)
    np.testing.assert_allclose(shares[1], 0, atol=1e-12)


def _without_rotary(model):
    weight, c = model.blocks[1].attention.q_b_proj.weight.value.copy(), model.config
    weight.reshape(c.num_attention_heads, -1, c.q_lora_rank)[:, c.qk_nope_head_dim :] = 0
    return weight


def test_every_size_of_the_page_has_a_letter():
    model = notebook.model()
    sizes = latent.letters(model.config, 23)
    attention = model.blocks[1].attention
    for matrix in (attention.q_a_proj, attention.q_b_proj, attention.kv_a_proj, attention.kv_b_proj, attention.o_proj):
        assert set(matrix.weight.value.shape) <= set(sizes.values())


def test_a_router_of_one_expert_never_learns_and_others_do():
    one, two, new_start, four = (experts.learn(*run) for run in ((1, 0), (2, 0), (2, 2), (4, 0)))
    np.testing.assert_allclose(one.losses, one.losses[0], rtol=1e-12)
    assert four.right[0] < 0.3 and four.right[-1] > 0.98 and four.losses[-1] < 0.1
    assert new_start.right[-1] > 0.97
    assert two.right[-1] < 0.75 and two.losses[-1] > 0.4
    quarter = np.random.default_rng(0).uniform((-3, 0.3), (-0.3, 3), (2000, 2))  # that of expert 1
    chosen = np.argsort(-(experts.in_the_plane(quarter) @ two.centroids.T), axis=1)[:, :2]
    assert not np.any(chosen == 1), "nobody there chooses the expert that is right"


def test_in_the_small_layer_every_expert_is_chosen():
    layer = experts.small_layer()
    assert len(np.unique(layer["chosen"])) == len(layer["w_gate"])


@pytest.mark.parametrize("tokens", [512, 2048])
def test_chance_is_less_uneven_in_a_larger_batch(tokens):
    assert balance.by_lot(4 * tokens, 16, 4) < 0.7 * balance.by_lot(tokens, 16, 4)


def test_every_limit_keeps_more_of_the_score_than_a_stricter_one():
    kept = balance.score_kept(np.random.default_rng(0).uniform(size=(200, 256)), top_k=8, nodes=8)
    assert np.all(np.diff(kept) >= 0) and kept[-1] == 1 and kept[0] > 0.8


def test_a_constant_normaliser_is_the_loss_without_the_quotient_rule():
    scores, chosen = np.random.default_rng(0).uniform(0.1, 0.9, (6, 5)), np.tile([0, 1], (6, 1))
    _, saved = balance.balance_loss.forward(scores, chosen, 6)
    fixed = saved.total
    eps, found = 1e-6, balance.constant_normaliser(1.0, saved)
    for t, j in ((0, 0), (3, 4)):
        moved = scores.copy()
        moved[t, j] += eps
        value = np.sum(saved.load[0, 0] * (moved / fixed[0]).mean(axis=0)) - np.sum(
            saved.load[0, 0] * (scores / fixed[0]).mean(axis=0)
        )
        assert found[t, j] == pytest.approx(value / eps, rel=1e-6, abs=1e-9)


def test_all_arms_and_all_findings_are_told(capsys):
    study = results("balance")
    balance.told_arms(study["arms"])
    notebook.findings(study)
    told = " ".join(capsys.readouterr().out.split())
    assert all(name in told for name in study["arms"])
    assert all(found["claim"] in told and found["numbers"] in told for found in study["findings"])
    assert told.count("undecided") >= sum(found["holds"] is None for found in study["findings"])


def test_the_second_gradient_grows_with_its_weight():
    model = notebook.model(np.float64)
    read = notebook.read(model)
    names = ["lm_head.weight", "model.layers.1.mlp.gate.weight"]
    half, whole = (
        mtp.second_gradients(model, read.tokens[:, :-1], read.tokens[:, 1:], names, weight) for weight in (0.15, 0.3)
    )
    for name in names:
        assert whole[name] == pytest.approx(2 * half[name], rel=1e-6) and whole[name] > 0
