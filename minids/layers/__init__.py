"""The boxes of the paper's figures: parameters, and the operations between them.

``y, saved = layer.forward(x)`` and ``dx = layer.backward(dy, saved)``; the backward pass adds into each parameter's gradient.
``saved`` is never kept on the layer, which may run several times in a step (embedding and head do, for multi-token prediction).
"""
