"""The tour of the model on paper, and with the arrays of a real one beside it."""

import re

import numpy as np
import pytest

from minids import DeepSeekV3, MinidsError, ModelConfig
from minids.commands.options import options_of
from minids.commands.train import Options
from minids.config.presets import PRESETS
from minids.lab.analysis.memory import activation_elements
from minids.lab.analysis.parameters import parameter_shapes
from minids.lab.analysis.tour import around_the_step, tour, tour_steps
from minids.words import si

TINY = ModelConfig.preset("tiny")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_fits_the_terminal(name):
    text = tour(ModelConfig.preset(name), name)
    assert all(len(line) < 100 for line in text.splitlines())
    assert "forward" in text and "backward" in text


def test_headings_say_where_in_the_model_one_is():
    config = TINY.replace(num_hidden_layers=4, first_k_dense_replace=1, num_nextn_predict_layers=1)
    headings = [line.strip("─ ") for line in tour(config, "tiny").splitlines() if line.startswith("── forward")]
    assert headings == [
        f"forward ── {place}"
        for place in (
            "embedding",
            "dense block, layer 0",
            "MoE block, layers 1 to 3 (3 times)",
            "head",
            "MTP module 1, layer 4",
        )
    ]


@pytest.mark.parametrize("changes", [dict(), dict(attention="mha"), dict(q_lora_rank=None, attention_bias=True)])
def test_every_parameter_is_visited_both_ways(changes):
    """Weights met on the tour, layers and experts multiplied out, are those of the model, in name and in shape."""
    config = TINY.replace(**changes)
    expected = dict(parameter_shapes(config))
    for phase in ("forward", "backward"):
        met = {}
        for step in tour_steps(config, 2, 64):
            if step.phase == phase:
                for weight in step.weights:
                    for layer in range(step.layers):
                        name = weight.name
                        if step.layer is not None:
                            name = name.replace(f"layers.{step.layer}.", f"layers.{step.layer + layer}.")
                        experts = config.n_routed_experts if ".experts.*." in name else 1
                        shape = weight.shape[1:] if experts > 1 else weight.shape
                        met |= {name.replace("*", str(expert)): shape for expert in range(experts)}
        assert met == expected


def test_equations_of_the_paper_are_all_there():
    text = " ".join(s.equation for s in tour_steps(TINY) if s.phase == "forward")
    numbers = set()
    for token in text.replace(",", " ").replace("eq.", " ").split():
        first, _, last = token.partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            numbers |= set(range(int(first), int(last or first) + 1))
    assert set(range(1, 14)) | set(range(15, 22)) | {24, 25} <= numbers


def test_v3_on_paper():
    steps = tour_steps(ModelConfig.preset("deepseek-v3"), batch=1, time=4096)
    by_title = {(s.stage, s.phase, s.title): s for s in steps}
    latent = by_title["MoE block", "forward", "key-value latent and shared RoPE key"]
    assert latent.layers == 58 and latent.layer == 3
    assert latent.weights[0][:2] == ("model.layers.3.self_attn.kv_a_proj_with_mqa.weight", (576, 7168))
    assert latent.output.shape == (1, 4096, 576)
    assert latent.flops == 2 * 4096 * 576 * 7168
    assert by_title["MoE block", "backward", latent.title].flops == 2 * latent.flops
    cached = sum(s.layers * t.size for s in steps if not s.stage.startswith("MTP") for t in s.cached)
    assert cached == 4096 * 61 * 576, "what the tour caches is the latent cache"
    assert by_title["MTP module 1", "forward", "project the pair"].output.shape == (1, 4095, 7168)


def test_what_is_formed_again_is_marked_and_counted():
    text = tour(TINY, "tiny", 2, 64)
    signs = {line.split()[1]: line.split()[0] for line in text.splitlines() if line.startswith(("      s ", "      r "))}
    assert signs["layers.1.q"] == signs["layers.1.x_norm"] == signs["layers.0.sigmoid(gate)"] == "r"
    assert signs["layers.1.o"] == signs["layers.1.s"] == "s"
    kept = 4 * activation_elements(TINY, 2, 64, "recompute")
    assert f"saved between them {si(kept, 'B')}" in text


def test_options_around_the_step_are_those_of_minids_train():
    flags = {option.flag for option in options_of(Options)}
    told = "\n".join(around_the_step(TINY))
    named = set(re.findall(r"--[a-z0-9.-]+", told))
    assert len(named) == 8 and named <= flags
    for section in ("4.1", "4.2", "2.1.2", "3.2.3", "3.3.2"):
        assert f"  {section} " in told


def test_backward_reads_the_forward_list_upwards():
    steps = tour_steps(TINY)
    titles = {phase: [s.title for s in steps if s.phase == phase] for phase in ("forward", "backward")}
    assert titles["backward"] == titles["forward"][::-1]
    saved = {phase: [s.saved for s in steps if s.phase == phase] for phase in ("forward", "backward")}
    assert saved["backward"] == saved["forward"][::-1], "whatever is saved is given back"
    assert not any(s.cached for s in steps if s.phase == "backward"), "only the forward pass fills a cache"


def test_real_arrays_are_shown_beside_the_paper():
    model = DeepSeekV3(TINY)
    values = {p.name: p.value for p in model.parameters}
    values["layers.1.c_kv_norm"] = np.full((2, 64, 32), 0.5)
    text = tour(TINY, "tiny", 2, 64, values=values)
    assert all(len(line) < 100 for line in text.splitlines())
    line = next(line for line in text.splitlines() if "layers.1.self_attn.o_proj.weight" in line)
    rms = np.sqrt(np.mean(model.parameters["model.layers.1.self_attn.o_proj.weight"].value ** 2))
    assert line.split()[-1] == f"{rms:.3g}"
    shown = [line for line in text.splitlines() if " layers.1.c_kv_norm " in line and not line.endswith("B")]
    assert shown and all(line.endswith(" 0.5") for line in shown)
    experts = next(line for line in text.splitlines() if "layers.1.mlp.experts.*.down_proj.weight" in line)
    assert experts.split()[-1] != "B", "stacked experts are found under the name the model gives them"


def test_an_array_of_another_shape_is_refused():
    with pytest.raises(MinidsError, match=r"lm_head.weight = \(2, 2\)"):
        tour(TINY, "tiny", values={"lm_head.weight": np.zeros((2, 2))})
    with pytest.raises(MinidsError, match="batch"):
        tour(TINY, "tiny", batch=0)
