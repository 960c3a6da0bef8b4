"""Pictures that need no model: their rows are what the accounting says, and what is written on them are the rows."""

import pytest
from lab.figures.proof import faults, words
from matplotlib.colors import to_hex

from minids import ModelConfig
from minids.errors import MinidsError
from minids.lab import figures
from minids.lab.analysis import cost, flops, kv_cache
from minids.lab.analysis.parameters import activated, total
from minids.lab.analysis.pipeline import Times, closed_form
from minids.lab.figures.picture import only
from minids.lab.figures.pipelines import HIDDEN
from minids.lab.figures.style import THEMES
from minids.ops import yarn

V3 = ModelConfig.preset("deepseek-v3")
TINY = ModelConfig.preset("tiny")


def test_architecture():
    rows = figures.architecture.rows()
    sizes = {row["size"]: row["value"] for row in rows if "size" in row}
    assert (sizes["dense_blocks"], sizes["moe_blocks"], sizes["parameters"]) == (3, 58, total(V3))
    chosen = [row["expert"] for row in rows if "expert" in row]
    assert len(set(chosen)) == 8 and len({expert // 32 for expert in chosen}) <= 4, "the drawn choice obeys the router's limits"
    assert "58 × MoE" in words(figures.architecture())
    assert "4 × MoE" in words(figures.architecture(config=TINY, name="tiny"))


def test_mla():
    rows = figures.mla.rows()
    tensors = {row["name"]: row for row in rows if row["what"] == "tensor"}
    assert sum(row["elements"] for row in tensors.values() if row["cached"]) == 576
    assert tensors["k_nope"]["elements"] + tensors["v"]["elements"] == kv_cache.mha_elements(V3) == 32768
    shown = words(figures.mla())
    assert "cached: 576" in shown and "32,768" in shown and "128 × 64" in shown
    with pytest.raises(MinidsError, match="attention = 'gqa'"):
        figures.mla(config=TINY.replace(attention="gqa"))


def test_mla_without_a_query_latent():
    lite = ModelConfig.preset("deepseek-v2-lite")
    rows = figures.mla.rows(config=lite, name="DeepSeek-V2-Lite")
    assert "c_q" not in {row["name"] for row in rows} and "q_nope" in {row["name"] for row in rows}
    for theme in THEMES:
        figure = figures.mla.drawn(rows, theme=theme)
        assert faults(figure) == [] and "DeepSeek-V2-Lite, arithmetic" in words(figure) and "$W^{DQ}$" not in words(figure)


def test_cache_per_token():
    rows = figures.kv_cache_per_token.rows()
    v3 = next(row for row in rows if row["name"] == "DeepSeek-V3")
    assert v3["bytes_per_token"] == kv_cache.bytes_per_token(V3) == 70272
    assert {row["name"]: row["bytes_per_token"] for row in rows}["Llama-3.1-405B"] == 516096
    figure = figures.kv_cache_per_token()
    assert "57 times less" in words(figure)
    bars = sorted(patch.get_width() for patch in figure.axes[0].child_axes[0].patches)
    assert bars[-1] == kv_cache.mha_elements(V3) * 61 * 2, "bars are to scale"
    mine = figures.kv_cache_per_token.rows(models={"mine": TINY})
    assert [row["name"] for row in only(mine, group="models")] == ["mine"]
    assert "mine" in words(figures.kv_cache_per_token(models={"mine": TINY}))
    shown = words(figures.kv_cache_per_token(config=TINY, name="tiny"))
    assert "tiny with MHA" in shown and "DeepSeek-V3 with" not in shown and "sizes of tiny, other attention" in shown


def test_cache_against_context():
    rows = {row["curve"]: row for row in figures.cache_against_context.rows()}
    assert rows["MLA"]["bytes"] == kv_cache.cache_bytes(V3, 131_072) and rows["MHA"]["fits"] == 20_011
    shown = words(figures.cache_against_context())
    assert "holds 20,011 tokens of MHA's cache, 1,138,433 of MLA's" in shown and "full at 20,011" in shown
    curves = figures.cache_against_context().axes[0].child_axes[0]
    assert curves.get_yscale() == curves.get_xscale() == "linear" and curves.get_ylim()[0] == 0, (
        "areas and slopes say what they say"
    )
    many = {f"DeepSeek-V3 number {i}": V3 for i in range(3)}
    figure = figures.cache_against_context(config=TINY, name="tiny", models=many, context=4096, card=1e9)
    assert faults(figure) == [] and "tiny, arithmetic" in words(figure), "equal curves have their names one below the other"


def test_absorption():
    rows = figures.absorption.rows()
    at = {row["way"]: row["flops"] for row in only(rows, context=8192)}
    assert at == {"absorbed": flops.decode(V3, 8192).flops, "expanded": flops.decode(V3, 8192, "re-expand").flops}
    assert f"{at['expanded'] / at['absorbed']:.0f} times less work" in words(figures.absorption())
    with pytest.raises(MinidsError, match="no latent to absorb"):
        figures.absorption(config=TINY.replace(attention="mha"))


def test_rope_and_yarn():
    rows = figures.rope_and_yarn.rows()
    pairs = only(rows, group="frequency")
    assert all(row["turns_in_original_context"] >= 32 for row in pairs[:11]) and pairs[-1]["turns_in_original_context"] < 1
    assert [row["ramp"] for row in pairs].count(0) == 11 and [row["ramp"] for row in pairs].count(1) == 9
    assert pairs[31]["radians_per_token"] / pairs[31]["with_yarn"] == pytest.approx(40)
    assert [row["with_yarn"] for row in pairs] == yarn.yarn_frequencies(64, 10000.0, 40.0, 4096).tolist()
    for row in only(rows, group="rotation"):
        assert row["x"] ** 2 + row["y"] ** 2 == pytest.approx(1)
    assert "keeps 11 of 32" in words(figures.rope_and_yarn())


def test_mtp_chain():
    rows = figures.mtp_chain.rows()
    for row in rows:
        assert row["sees_to"] == row["position"] + row["depth"] and row["sees_all_before"]
        assert row["predicts"] != row["shown"] or row["word"] == "is", "a repeated word is the only exception"
    assert only(figures.mtp_chain.rows(depths=2), depth=2, position=0)[0]["predicts"] == "all"


def test_where_parameters_sit():
    rows = figures.where_parameters_sit.rows()
    assert sum(row["parameters"] for row in rows) == total(V3) == 671_026_419_200
    assert sum(row["active"] for row in rows) == activated(V3)
    assert "671B" in words(figures.where_parameters_sit()) and "5.5 %" in words(figures.where_parameters_sit())


def test_training_cost():
    rows = figures.training_cost.rows()
    by_name = {row["name"]: row for row in rows}
    assert by_name["DeepSeek-V3"]["gflop_per_token"] == pytest.approx(flops.training(V3, 4096) / 1e9)
    assert by_name["together"]["dollars"] == cost.v3_dollars() == 5.576e6
    assert "9.9 times as much work" in words(figures.training_cost())
    mine = {row["name"]: row for row in figures.training_cost.rows(context=256, models={"mine": TINY})}["mine"]
    assert mine["gflop_per_token"] == pytest.approx(flops.training(TINY, 256) / 1e9) and mine["parameters"] == total(TINY)
    assert "at 256 tokens" in words(figures.training_cost(context=256)), "the context that was counted is the one it names"


def test_fp8_numbers():
    rows = figures.fp8_numbers.rows()
    numbers = {name: [row["value"] for row in only(rows, group="number", format=name)] for name in ("E5M2", "E4M3", "E5M6")}
    assert {name: (len(values), max(values)) for name, values in numbers.items()} == {
        "E5M2": (123, 57344),
        "E4M3": (126, 448),  # 127 codes, the last of which is NaN
        "E5M6": (1983, 65024),
    }
    assert min(numbers["E4M3"]) == 2**-9 and min(numbers["E5M2"]) == 2**-16
    longest = only(rows, group="sum", terms=4096)
    float32, promoted, short = (row["max_relative"] for row in longest)
    assert float32 < promoted < short
    shown = words(figures.fp8_numbers.drawn(rows))
    assert f"{100 * short:.1f} % wrong in 14 bits, {100 * promoted:.2f} % if promoted" in shown
    assert all(f"max {text}" in shown for text in ("57,344", "448", "65,024"))


def test_pipeline_schedules():
    rows = figures.pipeline_schedules.rows()
    for schedule in ("1F1B", "ZB1P", "DualPipe"):
        mine = only(rows, schedule=schedule)
        assert mine[0]["bubble"] == pytest.approx(closed_form(schedule, 8, HIDDEN).bubble)
        work = sum(r["end"] - r["start"] for r in mine if not r["overlapped"])
        assert len({r["device"] for r in mine}) == 8 and work > 0
    shown = words(figures.pipeline_schedules.drawn(rows))
    assert "overlapped pair 2.2" in shown and "DualPipe is done after 54.8, ZB1P after 67 and 1F1B after 81" in shown
    slow = words(figures.pipeline_schedules(stages=4, microbatches=8, times=Times(1, 2, 1, 3)))
    assert "overlapped pair 3" in slow
    few = figures.pipeline_schedules.rows(stages=4, microbatches=8, schedules=("1F1B", "ZB1P"))
    assert {row["schedule"] for row in few} == {"1F1B", "ZB1P"}
    figure = figures.pipeline_schedules.slide(
        rows, draw=lambda slide, rows: figures.pipeline_schedules.film.draw(slide, rows, 20)
    )
    assert faults(figure.figure) == [] and "20.0 of 54.8" in words(figure.figure)


def test_one_card():
    rows = figures.one_card.rows()
    by_kind = {row["attention"]: row for row in rows}
    assert by_kind["MLA"]["bytes_per_token"] == kv_cache.bytes_per_token(V3) == 70_272
    assert by_kind["MHA"]["tokens"] == 20_011 and by_kind["MHA"]["bytes_per_token"] == 3_997_696
    slide = figures.one_card.slide(rows)
    shown = words(slide.figure)
    assert "One 80 GB card: 40 pages or 2,277" in shown and "GQA with 8 groups: 640 pages; MQA: 5,123 pages" in shown
    pages = [len(drawn.get_paths()) for drawn in slide.ax.collections]
    assert pages[0] == 40 and pages[-1] == 2277, "as many as it says"
    dots = [round(plot.images[0].get_array()[..., 3].sum() / 9) for plot in slide.ax.child_axes]
    assert dots == [32768, 576]
    small = words(figures.one_card(config=TINY, name="tiny", card=8e9))
    assert "One 8 GB card" in small and "tiny, arithmetic" in small


def test_two_caches_read_one_text():
    rows, film = figures.one_card.rows(), figures.one_card.film
    moments = [tokens for tokens, _ in film.moments(rows)]
    assert moments == sorted(moments) and 20_011 in moments and moments[-1] == 131_072
    assert 11_500 < sum(milliseconds for _, milliseconds in film.moments(rows)) < 13_500

    def said(tokens):
        slide = figures.one_card.slide(rows, draw=lambda slide, rows: film.draw(slide, rows, tokens))
        assert faults(slide.figure) == []
        return words(slide.figure)

    assert "full" not in said(15_000) and "full" in said(20_011) and "1.41 GB, 1.8 % of a card" in said(20_011)
    last = said(131_072)
    assert "524 GB on 7 cards" in last and "9.21 GB, 11.5 % of a card" in last and "57 times less with MLA" in last


def test_wall_of_experts():
    rows = figures.wall_of_experts.rows()
    assert len(rows) == 58 * 8 and len({row["block"] for row in rows}) == 58
    for block in (3, 60):
        mine = only(rows, block=block)
        assert len({row["expert"] // 32 for row in mine}) <= 4 and sum(row["largest_gate"] for row in mine) == 1
    shown = words(figures.wall_of_experts())
    assert "464 of 14,848 experts" in shown and "illustration: random scores" in shown


def test_attention_family():
    rows = figures.attention_family.rows()
    assert {row["attention"]: row["numbers_per_token_and_layer"] for row in rows} == {
        "MHA": 32768,
        "GQA": 2048,
        "MQA": 256,
        "MLA": 576,
    }
    slide = figures.attention_family.slide(rows)
    shown = words(slide.figure)
    assert "576 numbers are cached instead of 32,768" in shown and "512 + 64 for all heads" in shown
    hatched = [patch for patch in slide.ax.patches if patch.get_hatch()]
    assert len(hatched) == 2 * (8 + 2 + 1) + 1, "keys and values of three, the latent of the fourth"


def test_all_to_all():
    rows = figures.all_to_all.rows()
    nodes = {row["node"] for row in rows}
    assert len(rows) == 8 and len(nodes) == rows[0]["crossings"] == 4 and rows[0]["home_node"] not in nodes
    assert rows[0]["bytes_there"] == 4 * (7168 + 4 * 56) and rows[0]["bytes_back"] == 4 * 2 * 7168
    shown = words(figures.all_to_all())
    assert "8 experts, but only 4 trips over the slow network" in shown and "2.0 times as much" in shown
    slide = figures.all_to_all.slide(rows)
    ways = [
        text
        for text in slide.ax.texts
        if (patch := getattr(text, "arrow_patch", None)) and to_hex(patch.get_edgecolor()) == "#a53c90"
    ]
    assert len({round(way.xy[1], 3) for way in ways}) == len(ways) == 4, "each trip by itself, none goes on from another node"
    home = figures.all_to_all.rows(seed=5)
    assert home[0]["crossings"] == len({row["node"] for row in home} - {home[0]["home_node"]}) == 3


def test_v3_timeline():
    rows = figures.v3_timeline.rows()
    trained = only(rows, stage="pre-training")
    assert trained[-1]["tokens"] == cost.V3_TOKENS and trained[-1]["learning_rate"] == pytest.approx(7.3e-6)
    at = {round(row["tokens"] / 1e12, 2): row for row in trained}
    assert (
        at[9.98]["learning_rate"] == 2.2e-4 and at[9.98]["mtp_weight"] == 0.3 and at[10.02]["mtp_weight"] == pytest.approx(0.1)
    )
    assert (
        at[14.28]["bias_speed"] == 0.001 and at[14.32]["bias_speed"] == 0 and at[14.5]["learning_rate"] == pytest.approx(2.2e-5)
    )
    assert trained[0]["batch"] == 3072 and at[0.48]["batch"] == 15360
    assert [row["stage_tokens"] for row in only(rows, stage="extension")] == [32768 * 1920 * 1000, 131072 * 480 * 1000]
    assert "68 % of the tokens are read at the full learning rate" in words(figures.v3_timeline())
