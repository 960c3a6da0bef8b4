"""The one-page model equals transformers' DeepSeek-V3 and V2, and the comparison notices the mistakes people make."""

import functools
import inspect
import types

import numpy as np
import peers
import pytest

from minids import pico

pytestmark = pytest.mark.parity

CASES = [pytest.param(name, id=name) for name in peers.CONFIGS]


@functools.cache
def theirs(name: str, dtype: type):
    """Logits and MTP logits of the PyTorch peer."""
    config = peers.CONFIGS[name]
    logits, ahead, _ = peers.torch_forward(config, peers.random_weights(config, dtype=dtype), peers.example(name)[0])
    return [logits, *ahead]


def ours(name: str, dtype: type, source: types.ModuleType = pico):
    config, (tokens, _) = peers.CONFIGS[name], peers.example(name)
    weights = peers.random_weights(config, dtype=dtype)
    hidden = source.hidden_states(tokens, weights, config)
    depths = range(1, config.num_nextn_predict_layers + 1)
    return [
        source.deepseek_v3(tokens, weights, config),
        *(source.mtp_logits(tokens, hidden, weights, config, k) for k in depths),
    ]


def largest_difference(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    assert [x.shape for x in a] == [x.shape for x in b]
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-4)], ids=["float64", "float32"])
def test_logits_of_every_depth(name, dtype, tolerance):
    mine, peer = ours(name, dtype), theirs(name, dtype)
    assert {x.dtype for x in mine + peer} == {np.dtype(dtype)}, "somewhere the data type changed"
    for depth, (a, b) in enumerate(zip(mine, peer, strict=True)):
        what = f"MTP depth {depth}" if depth else "the main model"
        assert a.std() > 0.3, f"logits of {what} are nearly constant, so that comparing them proves nothing"
        assert largest_difference([a], [b]) <= tolerance, f"logits of {what} differ from PyTorch's"


# Each entry is a line of pico.py and a wrong one that runs. (name, right, wrong)
MISTAKES = [
    (
        "gates from the biased score",
        "gates = np.take_along_axis(s, chosen",
        "gates = np.take_along_axis(choice.reshape(s.shape), chosen",
    ),
    ("forbidden groups masked with 0", "groups, -np.inf)", "groups, 0.0)"),
    ("V3 group scored by its best expert", "[..., -2:].sum", "[..., -1:].sum"),
    ("V2 group scored by its sum", "groups.max(axis=-1)", "groups.sum(axis=-1)"),
    ("groups ignored", 'c.topk_method != "greedy"', "False"),
    ("routing bias ignored", 's + w[p + "gate.e_score_correction_bias"] if corrected else s', "s"),
    ("softmax gate in V3", 'sigmoid(logits) if c.scoring_func == "sigmoid" else softmax(logits)', "softmax(logits)"),
    ("sigmoid gate in V2", 'sigmoid(logits) if c.scoring_func == "sigmoid" else softmax(logits)', "sigmoid(logits)"),
    ("gates always normalised", "if c.norm_topk_prob:\n        gates", "if True:\n        gates"),
    ("gates never scaled", "chosen, gates * c.routed_scaling_factor", "chosen, gates"),
    ("residual inside the MoE layer", "return y.reshape(h.shape), balance", "return y.reshape(h.shape) + h, balance"),
    ("shared experts forgotten", "if c.n_shared_experts else (", "if False else ("),
    (
        "gate and up swapped",
        'gate, up, down = (w[f"{p}{name}_proj.weight"][e] for name in ("gate", "up", "down"))\n    a, b',
        'up, gate, down = (w[f"{p}{name}_proj.weight"][e] for name in ("gate", "up", "down"))\n    a, b',
    ),
    ("pairs of RoPE laid out the other way", "if c.rope_interleave:", "if not c.rope_interleave:"),
    ("rotation in the wrong direction", "a * sin + b * cos], axis=-1).reshape", "b * cos - a * sin], axis=-1).reshape"),
    ("queries not rotated", "rope(q_rope, c)]", "q_rope]"),
    (
        "RoPE key normalised with the latent",
        "rope(k_rope[:, None], c)",
        "rope((k_rope / np.sqrt(np.mean(k_rope**2, axis=-1, keepdims=True) + 1e-6))[:, None], c)",
    ),
    ("latent not normalised", 'rmsnorm(c_kv, w, p + "kv_a_layernorm", LATENT_EPS)', "(c_kv, None)"),
    ("latent norm with rms_norm_eps", '"q_a_layernorm", LATENT_EPS', '"q_a_layernorm", c.rms_norm_eps'),
    ("block norms with a fixed epsilon", '"model.layers.{layer}.", c.rms_norm_eps, 0.0', '"model.layers.{layer}.", 1e-6, 0.0'),
    ("scale from the content part alone", "(c.qk_nope_head_dim + c.qk_rope_head_dim)", "c.qk_nope_head_dim"),
    ("softmax scale without m²", "-0.5 * m * m", "-0.5"),
    ("softmax scale with m", "-0.5 * m * m", "-0.5 * m"),
    ("cos and sin not stretched by mscale", "stretch * f(angle)", "f(angle)"),
    ("ramp reversed", "(1 - ramp) + ramp / yarn.factor", "ramp + (1 - ramp) / yarn.factor"),
    ("linear interpolation called YaRN", "(1 - ramp) + ramp / yarn.factor", "1 / yarn.factor"),
    ("correction range not rounded", "min(np.ceil(high), d_r - 1)", "min(high, d_r - 1)"),
    ("correction range not clipped at 0", "max(np.floor(low), 0)", "np.floor(low)"),
    ("the future visible", "np.tri(T, dtype=bool)", "np.tri(T, k=1, dtype=bool)"),
    ("values split before the keys", "k_nope, v = np.split(kv, [d_h]", "v, k_nope = np.split(kv, [-d_h]"),
    ("bias of a projection ignored", 'if name + ".bias" in w else y', "if False else y"),
    ("tied head forgotten", '"model.embed_tokens" if c.tie_word_embeddings else "lm_head"', '"lm_head"'),
    ("MTP halves in the paper's order", "[ahead, so_far]", "[so_far, ahead]"),
    ("MTP embedding one token early", "[tokens[:, k:]]", "[tokens[:, k - 1 : -1]]"),
    ("MTP hidden state one token late", "hidden[:, :-1]", "hidden[:, 1:]"),
    ("MTP heads side by side", "hidden[:, :-1]", "hidden_states(tokens, w, c)[:, :-k]"),
    (
        "MTP without its block",
        "x, balance, saved_block = block(x, w, layer, c, choices)  # [22]",
        "balance = saved_block = None",
    ),
    ("MTP with the main model's final norm", 'rmsnorm(x, w, p + "shared_head.norm"', 'rmsnorm(x, w, "model.norm"'),
]


@pytest.mark.parametrize(("right", "wrong"), [pytest.param(a, b, id=name) for name, a, b in MISTAKES])
def test_a_wrong_line_is_noticed(right, wrong):
    source = inspect.getsource(pico)
    assert source.count(right) == 1, f"pico.py should hold {right!r} once"
    mistaken = types.ModuleType("mistaken")
    exec(compile(source.replace(right, wrong), "mistaken.py", "exec"), mistaken.__dict__)

    def noticed(name: str) -> bool:
        try:
            return largest_difference(ours(name, np.float64, mistaken), theirs(name, np.float64)) > 1e-6
        except (ValueError, KeyError):  # shapes or names that do not fit
            return True

    assert any(noticed(name) for name in peers.CONFIGS), f"no model shows that {wrong!r} is wrong"
