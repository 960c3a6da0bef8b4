"""The commands that only calculate: text and JSON say the same, and what cannot be is refused in a line."""

import json

import pytest

from minids.cli import main
from minids.config import ModelConfig
from minids.lab.analysis.claims import CLAIMS
from minids.lab.analysis.cost import training_cost
from minids.lab.analysis.pipeline import simulate
from minids.lab.analysis.pipeline_table import IDLE, format_timeline


def said(capsys, *arguments):
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def test_claims_of_all_papers(capsys):
    code, out, _ = said(capsys, "claims")
    assert code == 0 and all(c.title in out for c in CLAIMS)
    code, out, _ = said(capsys, "claims", "v3_cache_bytes", "--json")
    (row,) = json.loads(out)
    assert code == 0 and row["computed"] == [70272] and row["source"] and row["formula"]


def test_compare_has_a_row_per_model(capsys):
    rows = json.loads(said(capsys, "compare", "--json")[1])
    table = said(capsys, "compare")[1]
    assert {"DeepSeek-V3", "Llama-3.1-405B", "Qwen2.5-72B", "Kimi-K2"} <= {row["name"] for row in rows}
    assert all(row["name"] in table and f"{row['cache_bytes']:,}" in table for row in rows)


def test_cost_is_v3s_bill_and_takes_the_readers_numbers(capsys):
    _, out, _ = said(capsys, "cost")
    assert "5,576,000 $" in out and f"{training_cost(ModelConfig.preset('deepseek-v3'), 14.8e12).gpu_hours:,.0f}" in out
    half = json.loads(said(capsys, "cost", "--tokens", "7.4e12", "--json")[1])
    whole = json.loads(said(capsys, "cost", "--json")[1])
    assert half["gpu_hours"] * 2 == pytest.approx(whole["gpu_hours"])


def test_cost_of_the_machine_in_front_of_you(capsys):
    code, out, _ = said(capsys, "cost", "--laptop", "--memory", "16")
    assert code == 0 and "years" in out and "16.0 GiB" in out
    found = json.loads(said(capsys, "cost", "--laptop", "--json")[1])
    assert found["flops_per_second"] > 1e8 and found["memory"] > 1 << 28 and found["seconds"] > 0
    out = said(capsys, "cost", "--laptop", "--preset", "tiny", "--tokens", "2e6")[1]
    assert out.startswith("training tiny on 2,000,000 tokens is "), "--preset and --tokens do nothing"


def test_the_context_is_at_most_the_models(capsys):
    for command in ("info", "cost"):
        own, longest, other = (
            said(capsys, command, "--preset", "tiny", "--json", *more)[1]
            for more in ([], ["--context", "512"], ["--context", "4096"])
        )
        assert own == longest != other, command


@pytest.mark.parametrize("schedule", ["1F1B", "ZB1P", "DualPipe", "DualPipeV"])
def test_a_pipeline_as_text_has_the_letters_of_its_slots(schedule, capsys):
    code, out, _ = said(capsys, "pipeline", "--schedule", schedule, "--stages", "4", "--microbatches", "8")
    timeline = simulate(schedule, 4, 8)
    rows = [line.split(maxsplit=2)[2] for line in out.splitlines() if line.startswith("device")]
    assert code == 0 and len(rows) == len(timeline.idle)
    for row, idle in zip(rows, timeline.idle, strict=True):
        assert len(row) == timeline.makespan and row.count(IDLE) == idle, "one column is one unit here"
    found = json.loads(said(capsys, "pipeline", "--schedule", schedule, "--stages", "4", "--microbatches", "8", "--json")[1])
    assert found["bubble"] == timeline.bubble == found["closed_form"]["bubble"]


def test_a_long_pipeline_is_scaled_to_the_page():
    text = format_timeline(simulate("1F1B", 4, 500))
    assert max(map(len, text.splitlines())) < 130


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["claims", "nope"], "claim = 'nope'"),
        (["compare", "--context", "0"], "context = 0"),
        (["cost", "--utilisation", "2"], "utilisation = 2.0"),
        (["cost", "--tokens", "-1"], "tokens = -1.0"),
        (["cost", "--preset", "v3"], "preset = 'v3'"),
        (["cost", "--laptop", "--memory", "-1"], "memory = -1.0"),
        (["cost", "--laptop", "--memory", "nan"], "memory = nan"),
        (["cost", "--laptop", "--memory", "1e300"], "memory = 1e+300"),
        (["cost", "--memory", "16"], "memory = 16.0: concerns --laptop"),
        (["cost", "--laptop", "--gpus", "8"], "gpus = 8: concerns rented GPUs"),
        (["cost", "--price", "nan"], "price = nan: must be a finite number"),
        (["study", "fp8", "--show", "--seeds", "1"], "seeds = (1,): concerns runs"),
        (["pipeline", "--stages", "7"], "stages = 7"),
        (["pipeline", "--schedule", "2F2B"], "2F2B"),
        (["pipeline", "--weight", "3"], "weight = 3.0"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(arguments, says, capsys):
    code, out, err = said(capsys, *arguments)
    assert code == 2 and not out
    assert says in err and len(err.strip().splitlines()) == 1


def test_every_claim_can_be_written_as_json(capsys):
    code, out, _ = said(capsys, "claims", "--json")
    assert code == 0 and len(json.loads(out)) > 50
