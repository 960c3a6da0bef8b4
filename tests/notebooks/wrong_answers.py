"""What students write instead of the solutions of the exercises, and what the check may say about it.

WRONG[notebook][exercise] is a list of (old, new, said): ``new`` in place of ``old`` in the solution makes the wrong answer.
``said`` is a phrase of the likely cause, judged true by hand; None where the check should name no cause, because the numbers do
not tell one. ``exercise`` is the last function or name that the solution defines.
"""

from __future__ import annotations

RIGHT: dict[str, dict[str, list[tuple[str, str]]]] = {
    "01": {"cache_bytes": [("* 2", "* 2.0")]},
    "02": {
        "softmax_backward": [
            ("    return p", "    p, dp = [list(map(float, row)) for row in p], dp\n    return np.asarray(p)")
        ],
        "lookup_backward": [("return d_weight", "return None, d_weight"), ("return d_weight", "return (d_weight,)")],
    },
    "03": {"turn": [("return y", "return y, None"), ("return y", "return y.tolist()")]},
    "04": {
        "copies": [("return np.repeat", "return 1.0 * np.repeat")],
        "cached": [('"mla": d_c + d_r', '"mla": float(d_c + d_r)')],
    },
    "05": {
        "break_even": [
            (
                "    return d_c * d_q / (d_c + d_q)",
                "    from fractions import Fraction\n    return Fraction(d_c * d_q, d_c + d_q)",
            )
        ]
    },
    "06": {"gates_of": [("return picked / picked.sum(axis=-1, keepdims=True)", "return [row / sum(row) for row in picked]")]},
    "07": {"turn": [("return bias +", "return np.float32(0) + bias +")]},
    "09": {"acceptance": [("np.minimum(p, q).sum(axis=-1)", "[sum(map(min, a, b)) for a, b in zip(p, q)]")]},
}
"""RIGHT[notebook][exercise] is a list of (old, new) that leave the solution right, in a form of its own."""

WRONG: dict[str, dict[str, list[tuple[str, str, str | None]]]] = {
    "00": {
        "my_linear_backward": [
            ("return dy @ W, dW", "return dW, dy @ W", "swapped"),
            (
                "dy.reshape(-1, dy.shape[-1]).T @ x.reshape(-1, x.shape[-1])",
                "x.reshape(-1, x.shape[-1]).T @ dy.reshape(-1, dy.shape[-1])",
                "transpose",
            ),
            (
                "dW = dy.reshape(-1, dy.shape[-1]).T @ x.reshape(-1, x.shape[-1])",
                "dW = np.einsum('bto,bti->boi', dy, x)",
                "summing over axis 0",
            ),
            ("return dy @ W, dW", "return dy @ W, dW / (dy.shape[0] * dy.shape[1])", "too small"),
            ("dy @ W, dW", "-dy @ W, dW", "sign is flipped"),
        ],
        "split_key_gradient": [
            (".sum(axis=1)", ".mean(axis=1)", "averaged over that axis"),
            (".sum(axis=1)", "", "summing over axis 1"),
            (".sum(axis=1)", "[:, 0]", None),
            ("dk[..., :d_h], dk[..., d_h:].sum(axis=1)", "dk[..., d_h:].sum(axis=1), dk[..., :d_h]", "swapped"),
            (".sum(axis=1)", ".sum(axis=2)", None),
        ],
        "tied_gradient": [
            (' + g["lm_head.weight"]', "", None),
            (
                'g["model.embed_tokens.weight"] + g["lm_head.weight"]',
                '(g["model.embed_tokens.weight"] + g["lm_head.weight"]) / 2',
                "too small",
            ),
            ('g["model.embed_tokens.weight"] + ', "", None),
        ],
    },
    "01": {
        "gates": [
            ("2.5 * picked", "picked", "too small"),
            ("np.take_along_axis(scores, chosen", "np.take_along_axis(scores + bias, chosen", None),
            ("2.5 * picked / picked.sum(axis=1, keepdims=True)", "2.5 * picked", "whole row"),
            ("picked.sum(axis=1, keepdims=True)", "scores.sum(axis=1, keepdims=True)", "whole row"),
            (
                "2.5 * picked / picked.sum(axis=1, keepdims=True)",
                "2.5 * np.exp(picked) / np.exp(picked).sum(axis=1, keepdims=True)",
                None,
            ),
        ],
        "my_block": [
            ("return x + served", "return served", None),
            ("block.moe.forward(block.ffn_norm.forward(x)[0])", "block.moe.forward(x)", None),
            ("    x = x + attended\n", "    x = attended\n", None),
            ("block.ffn_norm.forward(x)", "block.input_norm.forward(x)", None),
        ],
        "shown_and_asked": [
            ("tokens[:, 1:], targets[:, 1:]", "tokens[:, :-1], targets[:, 1:]", "one index later"),
            ("tokens[:, 1:], targets[:, 1:]", "targets[:, 1:], tokens[:, 1:]", "swapped"),
            ("targets[:, 1:]", "targets[:, :-1]", "returned twice"),
            ("targets[:, 1:]", "targets", None),
        ],
        "cache_bytes": [
            (" * 2", "", None),
            ("config.num_hidden_layers * (", "(", None),
            (" + config.qk_rope_head_dim", "", None),
            ("* 2", "* 4", None),
        ],
    },
    "02": {
        "silu_backward": [
            ("dy * s", "s", "multiplying by dy"),
            ("(1 + p * (1 - s))", "(1 - s)", None),
            ("dy * s * (1 + p * (1 - s))", "dy * s", None),
            ("(1 - s)", "(1 + s)", None),
            ("dy * s", "-dy * s", "sign is flipped"),
        ],
        "thrifty_backward": [
            ("u = dy * gain", "u = dy", "gain"),
            (" - normed * np.mean(u * normed, axis=-1, keepdims=True)", "", "mean"),
            ("np.mean(u * normed, axis=-1", "np.sum(u * normed, axis=-1", "mean"),
            (
                "return dx, np.sum((dy * normed).reshape(-1, gain.size), axis=0)",
                "return np.sum((dy * normed).reshape(-1, gain.size), axis=0), dx",
                "swapped",
            ),
            ("np.sum((dy * normed).reshape", "np.mean((dy * normed).reshape", "too small"),
            ("np.sum((dy * normed)", "np.sum((u * normed)", "gain"),
            ("np.sum((dy * normed)", "np.sum((dy * x)", None),
            ("dx = rstd * (", "dx = (", "row"),
            ("np.sum((dy * normed).reshape(-1, gain.size), axis=0)", "dy * normed", "summing over axes 0, 1"),
            ("(u - normed", "(u + normed", "mean"),
        ],
        "softmax_backward": [
            (" - np.sum(p * dp, axis=-1, keepdims=True)", "", "mean over the last axis"),
            ("p * (dp - np.sum(p * dp, axis=-1, keepdims=True))", "p * (1 - p) * dp", "diagonal"),
            ("np.sum(p * dp,", "np.sum(dp,", "mean over the last axis"),
            ("p * (dp", "(dp", "multiplying by y"),
            ("p * (dp - np.sum(p * dp, axis=-1, keepdims=True))", "p * (dp - np.sum(p * dp, axis=0, keepdims=True))", None),
            ("np.sum(p * dp,", "np.mean(p * dp,", "mean over the last axis"),
        ],
        "lookup_backward": [
            ("np.add.at(d_weight, ids, dx)", "d_weight[ids] = dx", None),
            ("np.add.at(d_weight, ids, dx)", "d_weight[ids] += dx", None),
            ("    return d_weight", "    return d_weight / ids.size", "averaged over the tokens"),
        ],
    },
    "03": {
        "turn": [
            ("a * cos - b * sin", "a * cos + b * sin", None),
            ("x[..., 0::2], x[..., 1::2]", "x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]", None),
            ("cos[:, None, :], sin[:, None, :]", "cos[:, None, :], -sin[:, None, :]", "wrong angle"),
            (
                "y[..., 0::2] = a * cos - b * sin\n    y[..., 1::2] = a * sin + b * cos",
                "y[..., : x.shape[-1] // 2] = a * cos - b * sin\n    y[..., x.shape[-1] // 2 :] = a * sin + b * cos",
                "half-split",
            ),
        ],
        "turn_backward": [
            ("-sin", "sin", "minus the angle"),
            ("turn(dy, cos, -sin)", "turn(dy, -cos, sin)", "sign is flipped"),
        ],
        "to_half_split": [
            ("weight[0::2], weight[1::2]", "weight[1::2], weight[0::2]", None),
            ("np.concatenate([weight[0::2], weight[1::2]])", "weight", None),
            ("np.concatenate([weight[0::2], weight[1::2]])", "weight[:, ::-1]", None),
        ],
        "my_yarn": [
            ("theta * (1 - ramp + ramp / factor)", "theta / factor", "what changes there"),
            ("(1 - ramp + ramp / factor)", "(ramp + (1 - ramp) / factor)", None),
            ("theta * (1 - ramp + ramp / factor)", "theta", "what changes there"),
        ],
    },
    "04": {
        "copies": [
            (
                "np.repeat(shared, heads // shared.shape[2], axis=2)",
                "np.tile(shared, (1, 1, heads // shared.shape[2], 1))",
                None,
            ),
            ("return np.repeat", "return -np.repeat", "sign"),
            ("return np.repeat", "return 2 * np.repeat", "too large"),
            ("    return np.repeat", "    np.repeat", "return missing"),
            ("axis=2)", "axis=1)", None),
            ("heads // shared.shape[2], axis", "heads, axis", None),
        ],
        "back_to_groups": [
            (".sum(axis=3)", ".mean(axis=3)", "too small"),
            (
                "(batch, time, groups, heads // groups, size).sum(axis=3)",
                "(batch, time, heads // groups, groups, size).sum(axis=2)",
                None,
            ),
            (".sum(axis=3)", "[:, :, :, 0]", None),
            (".sum(axis=3)", ".sum(axis=2)", None),
        ],
        "cached": [
            ('"gqa": 2 * n_g * d_h', '"gqa": n_g * d_h', None),
            ('"mla": d_c + d_r', '"mla": d_c', None),
            ('"mqa": 2 * d_h', '"mqa": d_h', None),
            ('"mla": d_c + d_r', '"mla": 2 * (d_c + d_r)', None),
        ],
        "step": [
            ("cache_v.append(project(x, w_v))", "cache_v.append(project(x, w_k))", None),
            (
                "np.concatenate(cache_k, axis=1), np.concatenate(cache_v, axis=1)",
                "cache_k[-1], cache_v[-1]",
                "position 0 has one key",
            ),
            ("keys, values, scale)", "keys, values, 1.0)", "position 0 has one key"),
            ("project(x, w_q), keys", "project(x, w_k), keys", None),
        ],
    },
    "05": {
        "shared_key_backward": [
            (".sum(axis=2, keepdims=True)", "", "summing over axis 2"),
            (".sum(axis=2, keepdims=True)", ".mean(axis=2, keepdims=True)", "heads"),
            (".sum(axis=2, keepdims=True)", "[:, :, :1]", None),
            (
                "dk[..., :d_h], dk[..., d_h:].sum(axis=2, keepdims=True)",
                "dk[..., d_h:].sum(axis=2, keepdims=True), dk[..., :d_h]",
                "swapped",
            ),
            ("dk[..., :d_h],", "-dk[..., :d_h],", "sign is flipped"),
        ],
        "absorbed_queries": [
            ("bthm,hmc->bthc", "bthm,gmc->bthc", None),
            (
                'return np.einsum("bthm,hmc->bthc", q_content, w_uk)',
                "return np.einsum('bthm,hmc->bthc', q_content, w_uk) / np.sqrt(d_h)",
                "too small",
            ),
            (
                'return np.einsum("bthm,hmc->bthc", q_content, w_uk)',
                "return np.einsum('bthm,mc->bthc', q_content, w_uk[0])",
                None,
            ),
        ],
        "values_after": [
            ("bthc,hvc->bthv", "bthc,gvc->bthv", None),
            ('np.einsum("bthc,hvc->bthv", mixed, w_uv)', "np.einsum('bthc,hvc->htbv', mixed, w_uv)", "transpose"),
            ("return np", "return -np", "sign is flipped"),
        ],
        "break_even": [
            ("d_c * d_q / (d_c + d_q)", "(d_c + d_q) / 2", None),
            ("d_c * d_q / (d_c + d_q)", "2 * d_c * d_q / (d_c + d_q)", None),
            ("d_c * d_q / (d_c + d_q)", "np.sqrt(d_c * d_q)", None),
        ],
        "step": [
            ("c, _ = rmsnorm.forward(x @ w_dkv.T, gain_c)", "c = x @ w_dkv.T", None),
            ("c_q, _ = rmsnorm.forward(x @ w_dq.T, gain_q)", "c_q = x @ w_dq.T", "position 0 has one key"),
            ("turned, _ = rope.forward(heads(c_q, w_qr), *angle)", "turned = heads(c_q, w_qr)", "position 0 has one key"),
            (
                "key, _ = rope.forward((x @ w_kr.T)[:, :, None], *angle)",
                "key = (x @ w_kr.T)[:, :, None]",
                "position 0 has one key",
            ),
            ("rotary.cos[t : t + 1], rotary.sin[t : t + 1]", "rotary.cos[:1], rotary.sin[:1]", "position 0 has one key"),
            ("held[..., d_c:], scale)", "held[..., d_c:], d_h**-0.5)", "position 0 has one key"),
            (
                "return by_absorption(heads(c_q, w_uq), turned, held[:, :, 0, :d_c], held[..., d_c:], scale)",
                "c, r = held[:, :, 0, :d_c], np.broadcast_to(held[..., d_c:], (B, t + 1, H, d_r))\n"
                "    q = np.concatenate([heads(c_q, w_uq), turned], axis=-1)\n"
                "    k = np.concatenate([heads(c, w_uk), r], axis=-1)\n"
                "    return attention.forward(q, k, heads(c, w_uv), scale)[0]",
                "one key for all heads",
            ),
        ],
    },
    "06": {
        "gates_of": [
            ("np.take_along_axis(scores, chosen", "np.take_along_axis(scores + bias, chosen", "of s alone"),
            ("np.argsort(-(scores + bias)", "np.argsort(-scores", None),
            ("np.argsort(-(scores + bias)", "np.argsort((scores + bias)", None),
            (
                "scores = 1 / (1 + np.exp(-logits))",
                "scores = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)",
                None,
            ),
            ("picked / picked.sum(axis=-1, keepdims=True)", "picked / scores.sum(axis=-1, keepdims=True)", "whole row"),
            ("picked / picked.sum(axis=-1, keepdims=True)", "picked", "whole row"),
        ],
        "all_experts": [
            ("np.put_along_axis(matrix, chosen, gates, axis=-1)", "np.put_along_axis(matrix, chosen, 1.0, axis=-1)", None),
            (
                'return np.einsum("ne,nei,edi->nd", matrix, inner, w_down)',
                "return np.einsum('nei,edi->nd', inner, w_down)",
                None,
            ),
            (
                'return np.einsum("ne,nei,edi->nd", matrix, inner, w_down)',
                "return np.einsum('ne,nei,edi->nd', matrix, inner, w_down) + u",
                "once too often",
            ),
            ('before = np.einsum("nd,eid->nei", u, w_gate)', 'before = np.einsum("nd,eid->nei", u, w_up)', None),
        ],
        "merged": [
            ("w_down.transpose(1, 0, 2).reshape(size, -1)", "w_down.reshape(size, -1)", "mere reshape"),
            (
                "return w_gate.reshape(-1, size), w_up.reshape(-1, size)",
                "return w_up.reshape(-1, size), w_gate.reshape(-1, size)",
                None,
            ),
            ("w_down.transpose(1, 0, 2)", "(w_down / len(w_down)).transpose(1, 0, 2)", "too small"),
        ],
        "router_backward": [
            (" - mean", "", "taken for a constant"),
            ("ds * s * (1 - s)", "ds", None),
            ("RHO / total", "1 / total", "too small"),
            ("ds * s * (1 - s)", "ds * s * (1 + s)", None),
            ("RHO / total *", "RHO *", "whole row"),
        ],
    },
    "07": {
        "turn": [
            ("counts.mean() - counts", "counts - counts.mean()", "sign is flipped"),
            ("speed * np.sign(counts.mean() - counts)", "speed * (counts.mean() - counts)", None),
            ("counts.mean() - counts", "np.median(counts) - counts", "the median; c̄ is the mean"),
            ("counts.mean() - counts", "len(chosen) - counts", None),
            ("bias + speed", "speed", "input 0"),
            ("bias + speed *", "bias + 2 * speed *", "too large"),
        ],
        "sequence_loss": [
            ("* experts / chosen.size", "/ chosen.size", None),
            ("* experts / chosen.size", "* experts / len(chosen)", None),
            ("(scores / scores.sum(axis=1, keepdims=True))", "scores", None),
            ("np.sum(f * wanted)", "np.mean(f * wanted)", None),
            ("* experts / chosen.size", "/ len(chosen)", None),
        ],
        "loss_backward": [
            ("(load - mean_load)", "load", "mean over the last axis"),
            (" / total", "", "whole row"),
            ("/ (groups * length)", "/ length", "too large"),
            ("* d_loss", "", "multiplying by dy"),
            ("/ (groups * length)", "", "summed over that axis instead of averaged"),
        ],
        "limited": [
            ("-np.inf", "0.0", None),
            ("[..., -2:].sum(axis=-1)", "[..., -1]", None),
            ("[..., -2:].sum(axis=-1)", ".sum(axis=-1)", None),
            ("[..., -2:].sum(axis=-1)", "[..., :2].sum(axis=-1)", None),
            ("np.argsort(-np.sort", "np.argsort(np.sort", None),
            (', kind="stable")[:, :top_k]', ', kind="stable")[:, :top_k][:, ::-1]', "another order"),
        ],
        "crossing": [
            ("set(row // (experts // nodes))", "row", None),
            (" + 2 * d)", ")", None),
            ("experts // nodes", "nodes", None),
            (" + 4 * d / 128", "", None),
        ],
    },
    "08": {
        "shown_and_target": [
            ("whole[:, k:-1], whole[:, k + 1 :]", "whole[:, : whole.shape[1] - 1 - k], whole[:, k + 1 :]", None),
            ("whole[:, k:-1], whole[:, k + 1 :]", "whole[:, k + 1 :], whole[:, k:-1]", None),
            ("whole[:, k:-1], whole[:, k + 1 :]", "whole[:, k + 1 :], whole[:, k + 1 :]", "shown its answer"),
            ("whole[:, k + 1 :]", "whole[:, 1 : whole.shape[1] - k]", None),
        ],
        "combine_backward": [
            ("np.concatenate([e, h], axis=-1)", "np.concatenate([h, e], axis=-1)", None),
            ("d_both[..., d:], saved_h", "d_both[..., :d], saved_h", None),
            ("dy.reshape(-1, d).T @ both.reshape(-1, 2 * d)", "both.reshape(-1, 2 * d).T @ dy.reshape(-1, d)", "transpose"),
            ("d_embedding, d_state, d_enorm", "d_state, d_embedding, d_enorm", "swapped"),
            ("both @ eh_proj.T", "both @ eh_proj.T / 2", "too small"),
        ],
        "mtp_loss": [
            ("/ targets.size", "/ right.size", None),
            ("weight / (len(losses) - 1)", "weight", None),
            ("targets[:, k:, None]", "targets[:, : targets.shape[1] - k, None]", None),
            ("weight / (len(losses) - 1)", "weight / len(losses)", None),
            ("-right.sum()", "right.sum()", "sign is flipped"),
        ],
    },
    "09": {
        "acceptance": [
            ("np.minimum(p, q).sum(axis=-1)", "(p * q).sum(axis=-1)", None),
            ("np.minimum(p, q).sum(axis=-1)", "np.minimum(1, p / q).mean(axis=-1)", None),
            ("np.minimum(p, q).sum(axis=-1)", "np.minimum(p, q).sum()", "leave that sum out"),
            ("np.minimum(p, q)", "np.maximum(p, q)", None),
            (".sum(axis=-1)", ".mean(axis=-1)", "too small"),
        ],
        "spoken": [
            ("rest / rest.sum()", "rest", None),
            ("rest / rest.sum()", "p", None),
            ("np.maximum(p - q, 0)", "np.maximum(q - p, 0)", None),
            ("(1 - kept.sum()) * ", "", None),
            ("kept = q * accept", "kept = p * accept", None),
        ],
        "stands": [
            ("choices[n]])", "choices[-1]])", None),
            (
                "    n = 0\n    while n < len(guesses) and guesses[n] == choices[n]:\n        n += 1",
                "    n = sum(g == c for g, c in zip(guesses, choices))",
                "behind a refused one",
            ),
            ("choices[n]])", "choices[n - 1]])", None),
        ],
    },
    "10": {
        "to_e4m3": [
            ("np.rint(size / step)", "np.floor(size / step)", "towards zero"),
            ("above - 1 - 3", "above - 3", None),
            (", -9)", ", -6)", "another constant"),
            ("np.minimum(np.abs(y), 448)", "np.abs(y)", None),
            ("np.sign(y) * ", "", "sign is flipped"),
        ],
        "in_tiles": [
            ("* scale).reshape", ").reshape", None),
            (".max(axis=-1, keepdims=True)", ".max()", None),
            (", np.float32(1e-4))", ", np.float32(0))", None),
            ("x.reshape(len(x), -1, width)", "x.reshape(len(x), 1, -1)", "one scale for a whole row"),
            ("np.float32(448)", "np.float32(240)", None),
        ],
        "scaled_product": [
            (" * sw[None, :, b]", "", None),
            ("y += sx", "y = sx", None),
            ("sx[:, b, None] * sw[None, :, b]", "sx[:, 0, None] * sw[None, :, 0]", None),
        ],
    },
    "11": {
        "rate": [
            ("(step + 1) / 20", "step / 20", None),
            ("(0.1 + 0.9 * 0.5", "(0.9 * 0.5", None),
            ("if done < 14.633 / 14.8 else 7.3 / 220", "", None),
            ("return peak * (0.1 if", "return peak * (0.3 if", None),
        ],
        "adamw_step": [
            ("np.sqrt(v_hat) + 1e-8", "np.sqrt(v_hat + 1e-8)", None),
            ("m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.95**t)", "m_hat, v_hat = m, v", None),
            ("0.05 * g * g", "0.05 * g", "root of a negative number"),
            ("+ 0.1 * theta)", ")", None),
            ("m = 0.9 * m + 0.1 * g\n", "g = g + 0.1 * theta\n    m = 0.9 * m + 0.1 * g\n", None),
            ("theta - lr", "theta + lr", None),
        ],
        "max_vio": [
            ("loads.max() / loads.mean() - 1", "loads.max() / loads.mean()", None),
            (", minlength=experts", "", "nobody chose"),
            ("loads.max() / loads.mean() - 1", "loads.max() - loads.mean()", None),
        ],
    },
    "12": {
        "tensor_from": [
            ("raw[8 + n + start : 8 + n + stop]", "raw[8 + start : 8 + stop]", None),
            ('.reshape(entry["shape"])', "[None]", "reshape"),
            ('"little"', '"big"', None),
        ],
        "undo_fp8": [
            ("mine[codes] * spread", "mine[codes] / spread", "divides by the scale"),
            (
                "np.repeat(np.repeat(scales, block, axis=0), block, axis=1)[:rows, :columns]",
                "np.tile(scales, (block, block))[:rows, :columns]",
                "whole column",
            ),
            ("mine[codes] * spread", "codes * spread", None),
        ],
        "to_half_split": [
            (
                "*range(d_nope, d_nope + d_r, 2), *range(d_nope + 1, d_nope + d_r, 2)",
                "*range(d_nope + 1, d_nope + d_r, 2), *range(d_nope, d_nope + d_r, 2)",
                None,
            ),
            ("return by_head[:, order].reshape(weight.shape)", "return by_head.reshape(weight.shape)", None),
            (
                "*range(d_nope), *range(d_nope, d_nope + d_r, 2), *range(d_nope + 1, d_nope + d_r, 2)",
                "*range(0, d_nope + d_r, 2), *range(1, d_nope + d_r, 2)",
                None,
            ),
        ],
    },
    "13": {
        "mla_parameters": [
            ("+ c.q_lora_rank + c.q_lora_rank * heads", "+ c.q_lora_rank * heads", None),
            ("+ heads * c.v_head_dim * c.hidden_size", "", None),
            (
                "c.hidden_size * (c.kv_lora_rank + c.qk_rope_head_dim)",
                "c.hidden_size * (c.kv_lora_rank + heads * c.qk_rope_head_dim)",
                None,
            ),
        ],
        "work": [
            ("return 3 *", "return 2 *", None),
            ("(T / 2)", "T", None),
            ("2 * parameters.activated(c)", "parameters.activated(c)", None),
            ("2 * pair", "pair", None),
        ],
        "wanted": [
            ("(1 - K / E) ** B", "(K / E) ** B", None),
            ("E * (1 - (1 - K / E) ** B)", "min(E, K * B)", None),
        ],
    },
    "14": {
        "gates_do_not_know_the_bias": [
            ("np.array([0.05, -0.05, 0.0, 0.0])", "np.zeros(4)", "would anything you look at change"),
        ],
        "mtp_does_not_peek": [
            ("before[:, :4], after[:, :4]", "before, after", None),
            ("before[:, :4], after[:, :4]", "before[:, :3], after[:, :3]", "would anything you look at change"),
        ],
        "backward": [
            ("hts,thr->sr", "hts,thr->shr", "the number of heads"),
            ('np.einsum("hts,thr->sr", dy, q)', "np.einsum('hts,thr->sr', dy, q) / len(dy)", "heads"),
            ("hts,sr->thr", "hts,tr->shr", None),
            ("return dq, dk", "return dk, dq", "swapped"),
        ],
    },
    "15": {
        "weight_part": [
            ("return dy @ W", "return dy @ W / 2", "too small"),
            ("return dy.T @ x", "return x.T @ dy", "transpose"),
            ("return dy.T @ x", "return dy.T @ x / len(x)", "averaged over that axis"),
        ],
        "one_f_one_b": [
            ("ahead = min(stages - 1 - s, microbatches)", "ahead = min(stages - s, microbatches)", None),
            ('held += 1 if kind == "F" else -1', 'held += 1 if kind == "F" else 0', None),
            ("return max(clock), most", "return clock[-1], most", None),
        ],
        "bubble": [
            ("F + B - 2 * W", "F + B - W", None),
            ("PP / 2 - 1", "PP - 1", None),
            ("FB + B - 3 * W", "FB + B - 2 * W", None),
        ],
    },
    "16": {
        "rows_to_ranks": [("np.any(holder == r, axis=1)", "holder == r", "counted twice")],
        "total": [("return sum(meeting.all_to_all(rank, [mine] * meeting.ranks))", "return mine", None)],
        "copies": [("np.argmax(loads / count)", "np.argmax(loads)", "takes load from it")],
    },
    "17": {
        "graded": [
            ("np.sum(counts)", "log_p.size", None),
            ("-np.sum(log_p * counts)", "np.sum(log_p * counts)", "sign is flipped"),
            (
                "return -np.sum(log_p * counts) / np.sum(counts)",
                "return np.mean([-r[c].mean() for r, c in zip(log_p, counts) if c.any()])",
                None,
            ),
        ],
        "my_advantages": [
            ("centred / r.std()", "centred", "too small"),
            ("centred = r - r.mean()", "centred = r", None),
            ("r.std() if", "r.std(ddof=1) if", "too small"),
            (" if r.std() > 0 else np.zeros(len(r))", "", "0/0"),
        ],
        "first_gradient": [
            ("-= 1", "-= 0", None),
            ("weight[:, None] * p", "-weight[:, None] * p", "sign is flipped"),
            ("weight[:, None] * p", "p", "whole row"),
        ],
    },
    "18": {
        "laid_out": [
            ("text[b:], [end], text[a:b]", "text[a:b], [end], text[b:]", "leaves the middle where it was"),
            ("[hole], text[b:]", "[hole], text[b + 1 :]", None),
        ],
        "batch_at": [
            ("start + (1 - start) * share / until", "share / until", None),
            ("start + (1 - start) * share / until", "start + (1 - start) * share", None),
            ("min(1.0, start + (1 - start) * share / until)", "start", None),
        ],
        "averaged": [
            ("(1 - d) / (1 - d**t)", "(1 - d)", "too small"),
            ("(1 - d) / (1 - d**t)", "d", "too small"),
        ],
    },
}
