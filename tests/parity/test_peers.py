"""The PyTorch peers are themselves right: MTP against transformers' own module, losses and gradients against plain NumPy."""

import numpy as np
import peers
import pytest
import torch
from transformers.modeling_layers import MtpModel

from minids import pico

pytestmark = pytest.mark.parity


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    chosen = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]  # (B, T, V) -> (B, T)
    return np.logaddexp.reduce(logits, axis=-1) - chosen


def numpy_loss(config, weights, tokens, targets, balance, monkeypatch) -> float:
    """Main loss, MTP loss (eqs 21-25) and balance loss (eqs 17-20) on top of the one-page model."""
    routed = []
    route = pico.route

    def listening(u, w, p, c, choices):
        _, chosen, gates = route(u, w, p, c, choices)
        logits = pico.linear(u, w, p + "gate")
        scores = 1 / (1 + np.exp(-logits)) if c.scoring_func == "sigmoid" else pico.softmax(logits)
        routed.append((scores, chosen))
        return scores, chosen, gates

    (B, T), D = tokens.shape, config.num_nextn_predict_layers
    hidden = pico.hidden_states(tokens, weights, config)
    with monkeypatch.context() as patch:
        patch.setattr(pico, "route", listening)
        loss = cross_entropy(pico.deepseek_v3(tokens, weights, config), targets).mean()
        if D:  # one chain passes every depth once
            pico.mtp_logits(tokens, hidden, weights, config, D)
    for k in range(1, D + 1):
        ahead = pico.mtp_logits(tokens, hidden, weights, config, k)
        loss += config.mtp_loss_weight / D * cross_entropy(ahead, targets[:, k:]).sum() / (B * T)
    if balance:
        for scores, chosen in routed:
            terms = zip(np.split(scores, B), np.split(chosen, B), strict=True)  # B × (T, E), B × (T, K)
            if not config.seq_aux:
                terms = [(scores, chosen)]
            per_sequence = []
            for s, made in terms:
                if config.aux_loss_counts == "unbiased":
                    made = np.argsort(-s, axis=-1)[:, : config.num_experts_per_tok]
                counts = np.bincount(made.ravel(), minlength=config.n_routed_experts)
                f = counts * config.n_routed_experts / made.size
                P = (s / s.sum(axis=-1, keepdims=True)).mean(axis=0)
                per_sequence.append(config.aux_loss_alpha * (f @ P))
            loss += np.mean(per_sequence)
    return float(loss)


VARIANTS = {
    **peers.CONFIGS,
    "balance_over_the_batch": peers.CONFIGS["base"].replace(seq_aux=False),
    "balance_counts_unbiased": peers.CONFIGS["base"].replace(aux_loss_counts="unbiased"),
}


def example(name):
    return peers.example(name if name in peers.CONFIGS else "base")


@pytest.mark.parametrize("balance", [False, True], ids=["plain", "balanced"])
@pytest.mark.parametrize("name", VARIANTS)
def test_loss_equals_a_numpy_one(name, balance, monkeypatch):
    config, (tokens, targets) = VARIANTS[name], example(name)
    weights = peers.random_weights(config)
    loss, _ = peers.torch_loss_and_grads(config, weights, tokens, targets, balance)
    assert loss == pytest.approx(numpy_loss(config, weights, tokens, targets, balance, monkeypatch), abs=1e-11)


@pytest.mark.parametrize("name", ["three_mtp", "tied_embeddings", "v2_like", "balance_counts_unbiased"])
def test_gradients_equal_differences_of_the_numpy_loss(name, monkeypatch):
    """Along one random direction for each weight: (L(w + εv) - L(w - εv)) / 2ε against the gradient times v."""
    config, (tokens, targets) = VARIANTS[name], example(name)
    weights = peers.random_weights(config)
    _, grads = peers.torch_loss_and_grads(config, weights, tokens, targets)
    trained = {key for key in weights if not key.endswith("e_score_correction_bias")}
    assert set(grads) == trained
    rng, step = np.random.default_rng(0), 1e-6
    for key in trained:
        assert grads[key].shape == weights[key].shape, key
        v = rng.normal(size=weights[key].shape)
        v /= np.linalg.norm(v)
        up, down = (
            numpy_loss(config, weights | {key: weights[key] + sign * step * v}, tokens, targets, True, monkeypatch)
            for sign in (1, -1)
        )
        assert (up - down) / (2 * step) == pytest.approx(float(np.sum(grads[key] * v)), abs=2e-8), f"gradient of {key}"


def test_balance_loss_of_even_routing_is_alpha():
    config = peers.CONFIGS["base"]
    E, K = config.n_routed_experts, config.num_experts_per_tok
    chosen = torch.arange(2 * 8 * K).reshape(2, 8, K) % E  # every expert as often as any other
    loss = peers.balance_loss(config, torch.full((2, 8, E), 0.3, dtype=torch.float64), chosen)
    assert loss.item() == pytest.approx(config.aux_loss_alpha)


def test_frozen_experts_replace_the_choice_and_nothing_else():
    config, (tokens, targets) = peers.CONFIGS["base"], peers.example("base")
    weights = peers.random_weights(config)
    loss, grads = peers.torch_loss_and_grads(config, weights, tokens, targets)
    *_, chosen = peers.torch_forward(config, weights, tokens)
    assert sorted(chosen) == [1, 2, 3], "blocks 1 and 2 and the MTP module's have experts"
    same_loss, same_grads = peers.torch_loss_and_grads(config, weights, tokens, targets, frozen=chosen)
    assert same_loss == pytest.approx(loss, abs=1e-12)
    for name in grads:
        np.testing.assert_allclose(same_grads[name], grads[name], atol=1e-12, err_msg=name)

    others = chosen | {1: (chosen[1] + 1) % config.n_routed_experts}
    other_loss, _ = peers.torch_loss_and_grads(config, weights, tokens, targets, frozen=others)
    assert abs(other_loss - loss) > 1e-6, "another choice in block 1 must change the loss"
    bias = "model.layers.1.mlp.gate.e_score_correction_bias"
    unmoved, _ = peers.torch_loss_and_grads(config, weights | {bias: -weights[bias]}, tokens, targets, frozen=others)
    assert unmoved == pytest.approx(other_loss, abs=1e-12), "the bias only decides who is chosen"


@pytest.mark.parametrize("D", [1, 2])
def test_mtp_equals_the_one_of_transformers(D):
    """transformers numbers its MTP blocks from 0, so that only without dense blocks are they the same."""
    config = peers.CONFIGS["all_sparse_two_mtp"].replace(num_nextn_predict_layers=D)
    weights, (tokens, _) = peers.random_weights(config), peers.example("all_sparse_two_mtp")
    model = peers.to_transformers(config, weights)
    mine = peers.TorchMTP(config, weights, model)
    ids = torch.tensor(tokens)
    with torch.no_grad(), peers.computing_in(torch.float64):
        hidden = model.model(ids, use_cache=False).last_hidden_state
        expected = mine(ids, hidden)
        model.config.num_nextn_predict_layers = D
        theirs = MtpModel(model, num_mtp_layers=D).eval()
        renamed = {"block.": "mtp_block.", "shared_head.norm.": "post_norm."}
        for ours, layer in zip(mine.depths, theirs.layers, strict=True):
            state = ours.state_dict()
            for old, new in renamed.items():
                state = {name.replace(old, new): value for name, value in state.items()}
            layer.load_state_dict(state, strict=True)
        for k in range(1, D + 1):
            n = ids.shape[1] - k
            positions = torch.arange(k, k + n)[None]  # theirs are those of the token ahead; only differences matter
            hidden = theirs.forward_layer(k - 1, hidden[:, :n], positions, None, input_ids=ids[:, k:])
            torch.testing.assert_close(model.lm_head(hidden), expected[k - 1], rtol=0, atol=1e-10)


def test_float64_is_float64_only_inside_the_context():
    config, (tokens, _) = peers.CONFIGS["v2_like"], peers.example("v2_like")
    weights = peers.random_weights(config)
    exact = pico.deepseek_v3(tokens, weights, config)
    assert np.abs(peers.transformers_logits(config, weights, tokens) - exact).max() < 1e-11
    model = peers.to_transformers(config, weights)
    with torch.no_grad():
        rounded = model(torch.tensor(tokens), use_cache=False).logits
    assert rounded.dtype == torch.float64
    assert np.abs(rounded.numpy() - exact).max() > 1e-9, "transformers no longer rounds to float32: drop the context"


def test_a_model_that_transformers_has_not_is_refused():
    config = peers.CONFIGS["v2_lite_like"].replace(norm_topk_prob=True)
    with pytest.raises(ValueError, match="no model that routes"):
        peers.to_transformers(config, peers.random_weights(config))
