"""``minids info``: the data, and that the table shows exactly the data."""

import json
import re

import pytest

from minids import MinidsError, ModelConfig
from minids.config.presets import PRESETS
from minids.lab.analysis.info import info
from minids.lab.analysis.info_table import format_info, leaves, short, show
from minids.lab.analysis.memory import serving_memory, training_memory

TINY = ModelConfig.preset("tiny")
CONFIGS = {name: ModelConfig.preset(name) for name in PRESETS} | {
    "mha": TINY.replace(attention="mha"),
    "gqa": TINY.replace(attention="gqa", num_key_value_heads=2),
    "mqa": TINY.replace(attention="mqa"),
    "tied and biased": TINY.replace(tie_word_embeddings=True, attention_bias=True),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_json_and_table_agree(name):
    """One line of the table per leaf, in order, whose numbers are the leaf's; read back from JSON nothing has changed."""
    data = json.loads(json.dumps(info(CONFIGS[name], name, batch=2)))
    table = format_info(data, explain=False).splitlines()[1:]
    printed = [line for line in table if line.startswith("  ")]
    expected = list(leaves(data))
    assert len(printed) == len(expected)
    headings = [line.strip("─ ") for line in table if line.startswith("──")]
    assert headings == list(dict.fromkeys(section for section, _, _ in expected))
    for line, (_, name, leaf) in zip(printed, expected, strict=True):
        label, rest = line[2:39], line[39:]
        assert label.strip() == name[:37].strip()
        number, *others = rest.split()
        assert number == show(leaf)
        assert float(number.replace(",", "")) == pytest.approx(leaf["value"], rel=5e-6, abs=0.5 if "," in number else 0)
        assert others == [*short(leaf).split(), *leaf["unit"].split()], f"{name}: something on the line is not in the data"


@pytest.mark.parametrize("name", CONFIGS)
def test_every_number_leads_to_its_formula_and_source(name):
    data = info(CONFIGS[name], name)
    text = format_info(data)
    assert all(len(line) < 100 for line in text.splitlines())
    body, rest = text.split("── formulas ")
    formulas, sources = (" ".join(part.split()) for part in rest.split("── sources "))
    for (_, label, leaf), line in zip(leaves(data), (line for line in body.splitlines() if line.startswith("  ")), strict=True):
        note = re.search(r"\[\d+\]$", line).group()
        formula = re.search(re.escape(note) + r" (.*?)  ?\((\w)\)(?= \[|$| ─)", formulas.replace("(a) [", "(a) [") + " ─")
        assert formula, f"{label}: no formula behind {note}"
        assert formula.group(1) == " ".join(leaf["formula"].split())
        assert f"({formula.group(2)}) {' '.join(leaf['source'].split())}" in sources


def test_known_numbers_of_v3():
    data = info(ModelConfig.preset("deepseek-v3"), "deepseek-v3")
    value = {(section, label): leaf["value"] for section, label, leaf in leaves(data)}
    assert value["parameters", "total"] == 671_026_419_200
    assert value["parameters", "MTP modules, extra"] == 11_610_068_224
    assert value["cache", "per token, BF16"] == 70_272
    assert value["cache per token and layer", "MHA"] == 32_768
    assert value["cache per token and layer", "as many as GQA with"] == 2.25
    assert round(value["FLOPs per token", "training, causal"] / 1e9, 2) == 250.46
    assert round(value["FLOPs per token", "training, not causal"] / 1e9, 2) == 281.16
    assert round(value["FLOPs per token", "forward, causal"] / 1e9, 2) == 83.49
    assert round(value["FLOPs to decode one token", "absorbed"] / 1e9, 2) == 142.84
    assert value["memory to serve", "FP8 weights, BF16 cache"] == 671_026_419_200 + 4096 * 70_272
    for label, leaf in data["parameters by part"].items():
        assert label.startswith("MTP") == leaf["source"].startswith("DeepSeek-V3"), f"{label} is not from {leaf['source']}"
    assert value["position", "softmax scale"] == pytest.approx(0.1352337788, rel=1e-9)
    assert sum(n for (section, label), n in value.items() if section == "parameters by part" and "activated" not in label) == (
        671_026_419_200 + 11_610_068_224
    )


def test_context_and_batch_are_used():
    one, four = (info(TINY, "tiny", context=64, batch=b) for b in (1, 4))
    assert four["cache"]["4 × 64 tokens, FP32"]["value"] == 4 * one["cache"]["1 × 64 tokens, FP32"]["value"]
    assert four["memory to train"]["float32, all stored: total"]["value"] == training_memory(TINY, batch=4, time=64).total
    assert four["memory to serve"]["FP32 weights"]["value"] == serving_memory(TINY, 64, 4, 4).weights
    assert info(TINY, "tiny")["context"] == 512, "a model that takes less than 4096 tokens is described at what it takes"


@pytest.mark.parametrize("wrong", [dict(context=0), dict(batch=-1), dict(context=1.5), dict(batch=True)])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(MinidsError, match=next(iter(wrong))):
        info(TINY, "tiny", **wrong)
