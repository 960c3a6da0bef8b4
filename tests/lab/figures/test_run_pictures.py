"""Pictures of a trained model: their rows are what the model does, each is drawn without collisions, the same twice."""

import numpy as np
import pytest
from lab.figures.proof import faults, words

import minids
from minids import MinidsError, generate
from minids.inference.speculative import Counts
from minids.lab import figures
from minids.lab.figures.collection import pictures
from minids.lab.figures.picture import only
from minids.lab.figures.token import _overtaken, _Steps, _story
from minids.lab.figures.trained import Trained

FROM_A_RUN = [p for p in pictures() if p.source.startswith("run")]
QUICK = {"guesses_accepted": {"windows": 2, "new_tokens": 8, "rounds": 1}, "nodes_and_traffic": {"length": 32}}


@pytest.fixture(scope="module")
def rows(run):
    """Rows of every picture of a run, made once."""
    return {p.name: p.rows(run=run, **QUICK.get(p.name, {})) for p in FROM_A_RUN}


@pytest.mark.parametrize("picture", FROM_A_RUN, ids=lambda p: p.name)
def test_every_picture_says_which_model_it_is_of(picture, rows, run):
    count = minids.load(run).parameters.values.size
    assert f"tiny, {count / 1000:.0f} k parameters, bytes" in words(picture.drawn(rows[picture.name]))


@pytest.mark.parametrize("picture", FROM_A_RUN, ids=lambda p: p.name)
def test_no_word_is_cut_off_covered_or_too_small(picture, rows):
    for theme in ("light", "dark"):
        assert faults(picture.drawn(rows[picture.name], theme=theme)) == []


def test_keys_and_values_have_the_latents_rank(rows):
    for block in range(3):
        mine = only(rows["rank_of_keys_and_values"], block=block)
        values = [row["singular_value"] for row in mine]
        assert values[31] > 1e-6 > values[32], "32 directions and rounding"
        assert mine[-1]["energy_up_to"] == pytest.approx(1)
        squares = np.array(values) ** 2
        assert mine[9]["energy_up_to"] == pytest.approx(squares[:10].sum() / squares.sum())
    shown = words(figures.rank_of_keys_and_values.drawn(rows["rank_of_keys_and_values"]))
    assert "99 % of the 256 numbers of keys and values; the latent has 32" in shown
    assert f"block 1: {1 + sum(row['energy_up_to'] < 0.99 for row in only(rows['rank_of_keys_and_values'], block=1))}" in shown


def test_drafts_are_those_that_speculation_made(rows, run):
    found, trained = rows["drafts"], Trained.open(run)
    counts = Counts()
    start = [*trained.tokenizer.beginning, *trained.tokenizer.encode(found[0]["prompt"])]
    new = generate(trained.model, start, len(found), 0.6, seed=0, speculative=True, counts=counts)
    assert [row["token"] for row in found] == trained.letters(new)
    assert found[-1]["pass"] == counts.passes and sum(row["drafted"] for row in found) in (
        counts.accepted[0],
        counts.accepted[0] - 1,
    )
    assert all(not (row["drafted"] and row["refused"]) for row in found)
    film = figures.drafts.film
    for passes, _ in (film.moments(found)[1], film.moments(found)[-1]):
        slide = figures.drafts.slide(found, draw=lambda slide, rows, passes=passes: film.draw(slide, rows, passes))
        assert faults(slide.figure) == [] and f"pass {int(passes)}:" in words(slide.figure)


def test_the_router_of_one_token(rows):
    token = [row for row in rows["one_token_routed"] if "score" in row]
    chosen = [row for row in token if row["chosen"]]
    assert len(chosen) == 4 and len({row["group"] for row in chosen}) <= 2 and all(row["group_kept"] for row in chosen)
    total = sum(row["score"] for row in chosen)
    for row in chosen:
        assert row["gate"] == pytest.approx(2.5 * row["score"] / total, rel=1e-5), "from the score without the bias"
    kept = [row for row in token if row["group_kept"]]
    worst = min(row["score"] + row["bias"] for row in chosen)
    assert all(row["score"] + row["bias"] <= worst + 1e-7 for row in kept if not row["chosen"])
    assert "adds up to 2.5" in words(figures.one_token_routed.drawn(token))


def test_the_walk_of_one_token(rows):
    token, picture = rows["one_token_routed"], figures.one_token_routed
    assert 12_000 < sum(milliseconds for _, milliseconds in picture.film.moments(token)) < 16_000
    said = {}
    for moment, _ in picture.film.moments(token):
        if moment[1] == 1:
            slide = picture.slide(token, draw=lambda slide, rows, moment=moment: picture.film.draw(slide, rows, moment))
            assert faults(slide.figure) == []
            said[moment[0]] = words(slide.figure)
    experts = [row for row in token if "score" in row]
    assert all(f"{row['gate']:.2f}" in said["gates"] for row in experts if row["chosen"])
    assert "shared" in said["shared"] and "shared expert" not in said["gates"]
    for n in (1, 512):
        assert sum(row["load"] for row in only(token, after=n)) == pytest.approx(16), "shares of an even load"
    busiest = max(row["load"] for row in only(token, after=512))
    assert f"After 512 tokens of all domains the busiest expert has {busiest:.1f} times its share" in said["load"]


def test_what_is_told_of_a_token():
    biased, groups = np.array([0.5, 0.1, 0.1, 0.1, 0.4, 0.3, 0.0, 0.9]), np.array([0.6, 0.2, 0.7, 0.9])
    steps = _Steps(biased, np.zeros(8), groups, kept={2, 3}, chosen={4, 5, 7}, without={4, 5, 7})
    assert _story(steps) == (True, False, False, 0.0), "expert 0 is second, and its group is out; no bias, no overtaking"
    assert _overtaken(np.array([0.5, 0.4]), np.array([0.2, 0.0])) == (0, 1, pytest.approx(0.1))
    assert _overtaken(np.array([0.5, 0.4]), np.array([0.0, 0.0])) is None


def test_a_wall_of_a_trained_model(run):
    rows = figures.wall_of_experts.rows(run=run)
    assert len(rows) == 2 * 4 and "A token meets 8 of 32 experts" in words(figures.wall_of_experts.drawn(rows))
    assert faults(figures.wall_of_experts.drawn(rows)) == []


def test_each_token_has_its_experts(rows):
    for place in {row["place"] for row in rows["tokens_and_experts"]}:
        mine = only(rows["tokens_and_experts"], place=place)
        assert len({row["expert"] for row in mine}) == 4
        assert sum(row["gate"] for row in mine) == pytest.approx(2.5, rel=1e-5)
    sets = {}
    for row in rows["tokens_and_experts"]:
        sets.setdefault((row["token"], row["place"]), set()).add(row["expert"])
    pairs = [(a, b) for a in sets for b in sets if a[1] < b[1]]
    shared = {
        alike: [len(sets[a] & sets[b]) / 4 for a, b in pairs if alike is None or (a[0] == b[0])] for alike in (True, None)
    }
    shown = words(figures.tokens_and_experts.drawn(rows["tokens_and_experts"]))
    assert f"share {100 * np.mean(shared[True]):.0f} %" in shown and f"any two {100 * np.mean(shared[None]):.0f} %" in shown


def test_loads_add_up_in_every_domain(rows):
    for domain in ("prose", "code", "arithmetic"):
        for block in (1, 2):
            mine = only(rows["experts_by_domain"], domain=domain, block=block)
            assert sum(row["load"] for row in mine) == pytest.approx(1) and len(mine) == 16
            assert all(row["times_even"] == pytest.approx(16 * row["load"]) for row in mine)
    best = max(rows["experts_by_domain"], key=lambda row: row["times_even"])
    shown = words(figures.experts_by_domain.drawn(rows["experts_by_domain"]))
    assert f"{best['times_even']:.1f} times its even share of {best['domain']}" in shown


def test_nodes_are_those_of_the_models_choices_under_each_limit(rows, run):
    found, model, held_out = rows["nodes_and_traffic"], minids.load(run), Trained.open(run)
    ids = np.concatenate([held_out.window(domain, 33, 2) for domain in held_out.held_out.domains])
    for limit in range(1, 5):
        mine = only(found, M=limit)
        assert sum(row["share_of_tokens"] for row in mine) == pytest.approx(1), "every token uses some number of nodes"
        assert all(row["share_of_tokens"] == 0 for row in mine if row["nodes"] > limit), "never more than M"
        assert sum(row["nodes"] * row["share_of_tokens"] for row in mine) == pytest.approx(mine[0]["mean_nodes"])
        per_node = 32 + 4 + 2 * 32  # bytes: FP8 out with one scale, BF16 back
        assert mine[0]["bytes_per_token_and_layer"] == pytest.approx(per_node * mine[0]["mean_nodes"])
    own = only(found, M=2)[0]
    assert own["loss"] == pytest.approx(model.losses(ids[:, :-1], ids[:, 1:], mtp=False).main), "its own limit changes nothing"
    by_chance = only(found, M=4)[0]["mean_nodes_by_chance"]
    assert by_chance == pytest.approx(4 * (1 - 12 * 11 * 10 * 9 / (16 * 15 * 14 * 13)), abs=0.05), "four even draws of sixteen"
    none_of_a_group = np.prod([(224 - i) / (256 - i) for i in range(8)])
    assert own["v3_nodes_without_limit"] == pytest.approx(8 * (1 - none_of_a_group), abs=0.05), "of V3's 8 groups, 8 even draws"
    assert own["v3_limit"] == 4 and 3.5 < own["v3_nodes_by_chance"] <= 4
    shown = words(figures.nodes_and_traffic.drawn(found))
    assert f"by chance: {own['v3_nodes_by_chance']:.1f} nodes; without it {own['v3_nodes_without_limit']:.1f}" in shown
    assert f"uses {own['mean_nodes']:.1f} of 4 nodes" in shown and f"{own['loss']:.3f}" in shown


def test_guesses_accepted_are_the_models_own_choices(rows, run):
    model, held_out = minids.load(run), Trained.open(run)
    for row in only(rows["guesses_accepted"], group="guess"):
        tokens = held_out.window(row["domain"], 256, 2)
        own, guess = model.logits(tokens).argmax(-1), model.mtp_logits(tokens)[0].argmax(-1)
        assert row["accepted"] == pytest.approx(np.mean(guess == own[:, 1:]))
        assert row["tokens_per_pass"] == pytest.approx(1 + row["accepted"])
    for row in only(rows["guesses_accepted"], group="speed"):
        assert row["same_text"] and 1 <= row["tokens_per_pass_written"] <= 2
        assert row["times_as_fast"] == pytest.approx(row["tokens_per_second"] / row["plain_tokens_per_second"])
    shown = words(figures.guesses_accepted.drawn(rows["guesses_accepted"]))
    assert all(f"{row['times_as_fast']:.2f}" in shown for row in only(rows["guesses_accepted"], group="speed"))


def test_what_the_model_writes_is_the_same_twice(rows, run):
    assert only(figures.training_run.rows(run=run), group="sample") == only(rows["training_run"], group="sample")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(MinidsError, match="holds no trained model"):
        figures.rank_of_keys_and_values(run=tmp_path)
