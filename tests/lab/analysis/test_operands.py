"""The operands of a step are what was multiplied."""

import numpy as np
import support

from minids.lab.analysis.operands import Operand, operands


def test_every_linear_layer_has_its_input_and_its_gradient():
    model = support.build(support.TINY, dtype=np.float64)
    tokens, targets = support.batch(support.TINY, 2, 8, seed=1)
    found = operands(model, tokens, targets)
    name = "model.layers.0.self_attn.o_proj.weight"
    x, dy = (next(o.values for o in found if o.layer == name and o.kind == kind) for kind in ("input", "gradient"))
    model.loss_and_grads(tokens, targets)
    np.testing.assert_allclose(dy.T.astype(float) @ x, model.parameters[name].grad, rtol=1e-4, atol=1e-6)


def test_an_outlier_costs_the_others_their_place_unless_tiles_keep_it_apart():
    x = np.random.default_rng(0).normal(size=(4, 256)).astype(np.float32)
    x[0, 0] = 1e7
    one = Operand("w", "input", x)
    assert one.outlier > 1e6
    assert one.lost(None) > 0.9 > 0.2 > one.lost((1, 128))
