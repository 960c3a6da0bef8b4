"""Notebook 5: what it measures beside its cells. The text of the page says these things, so they are held here."""

import numpy as np

from minids.lab import notebook
from minids.lab.lessons import latent
from minids.lab.plots import latent as drawn


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
