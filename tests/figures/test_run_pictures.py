"""Pictures of a trained model: their rows are what the model does, each is drawn without collisions, the same twice."""

import numpy as np
import pytest
from figures.proof import faults, words

import minids
from minids import MinidsError, figures
from minids.figures.collection import pictures
from minids.figures.picture import only
from minids.figures.trained import Trained

FROM_A_RUN = [p for p in pictures() if p.source == "run"]


@pytest.fixture(scope="module")
def rows(run):
    """Rows of every picture of a run, made once."""
    return {p.name: p.rows(run=run) for p in FROM_A_RUN}


@pytest.mark.parametrize("picture", FROM_A_RUN, ids=lambda p: p.name)
def test_no_word_is_cut_off_covered_or_too_small(picture, rows):
    for theme in ("light", "dark"):
        assert faults(picture.drawn(rows[picture.name], theme=theme)) == []


def test_attention_is_the_softmax_of_content_and_position(rows, run):
    pairs = only(rows["attention_split"], group="pair")
    for query in {row["query"] for row in pairs}:
        mine = only(pairs, query=query)
        weights = np.array([row["weight"] for row in mine])
        scores = np.array([row["content"] + row["position"] for row in mine])
        # The weights are those over the whole text; among the tokens shown they are in the softmax's proportion.
        np.testing.assert_allclose(weights / weights[0], np.exp(scores - scores[0]), rtol=1e-3)
        assert weights.sum() <= 1 + 1e-6
    heads = only(rows["attention_split"], group="head")
    assert len(heads) == 3 * 4 and all(0 < row["share"] < 1 for row in heads)


def test_keys_and_values_have_the_latents_rank(rows):
    for block in range(3):
        mine = only(rows["rank_of_keys_and_values"], block=block)
        values = [row["singular_value"] for row in mine]
        assert values[31] > 1e-6 > values[32], "32 directions and rounding"
        assert mine[-1]["energy_up_to"] == pytest.approx(1)


def test_the_router_of_one_token(rows):
    token = rows["one_token_routed"]
    chosen = [row for row in token if row["chosen"]]
    assert len(chosen) == 4 and len({row["group"] for row in chosen}) <= 2 and all(row["group_kept"] for row in chosen)
    total = sum(row["score"] for row in chosen)
    for row in chosen:
        assert row["gate"] == pytest.approx(2.5 * row["score"] / total, rel=1e-5), "from the score without the bias"
    kept = [row for row in token if row["group_kept"]]
    worst = min(row["score"] + row["bias"] for row in chosen)
    assert all(row["score"] + row["bias"] <= worst + 1e-7 for row in kept if not row["chosen"])
    assert "4 experts, gates that add up to 2.5" in words(figures.one_token_routed.drawn(token))


def test_each_token_has_its_experts(rows):
    for place in {row["place"] for row in rows["tokens_and_experts"]}:
        mine = only(rows["tokens_and_experts"], place=place)
        assert len({row["expert"] for row in mine}) == 4
        assert sum(row["gate"] for row in mine) == pytest.approx(2.5, rel=1e-5)


def test_loads_add_up_in_every_domain(rows):
    for domain in ("prose", "code", "arithmetic"):
        for block in (1, 2):
            mine = only(rows["experts_by_domain"], domain=domain, block=block)
            assert sum(row["load"] for row in mine) == pytest.approx(1) and len(mine) == 16


def test_guesses_accepted_are_the_models_own_choices(rows, run):
    model, held_out = minids.load(run), Trained.open(run)
    for row in rows["guesses_accepted"]:
        tokens = held_out.window(row["domain"], 256, 8)
        own, guess = model.logits(tokens).argmax(-1), model.mtp_logits(tokens)[0].argmax(-1)
        assert row["accepted"] == pytest.approx(np.mean(guess == own[:, 1:]))
        assert row["tokens_per_pass"] == pytest.approx(1 + row["accepted"])


def test_gradients_are_those_of_the_loss(rows, run):
    flow = rows["gradient_flow"]
    assert {kind: len(only(flow, kind=kind, block=2)) for kind in ("head", "latent", "rope", "routed", "shared")} == {
        "head": 4,
        "latent": 32,
        "rope": 16,
        "routed": 16,
        "shared": 1,
    }
    assert not only(flow, kind="routed", block=0), "the first block is dense"
    model, held_out = minids.load(run), Trained.open(run)
    ids = np.concatenate([held_out.window(domain, 257, 2) for domain in held_out.held_out.domains])
    _, grads = model.loss_and_grads(ids[:, :-1], ids[:, 1:])
    down = grads["model.layers.1.self_attn.kv_a_proj_with_mqa.weight"]
    got = [row["norm"] for row in flow if row["block"] == 1 and row["kind"] in ("latent", "rope")]
    np.testing.assert_allclose(got, np.linalg.norm(down, axis=1), rtol=1e-4)


def test_what_the_model_writes_is_the_same_twice(rows, run):
    assert only(figures.training_run.rows(run=run), group="sample") == only(rows["training_run"], group="sample")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(MinidsError, match="holds no trained model"):
        figures.attention_split(run=tmp_path)
