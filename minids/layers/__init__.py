"""The boxes of the paper's figures: parameters, and the operations between them.

``y, saved = layer.forward(x)`` and ``dx = layer.backward(dy, saved)``; the backward pass adds into each parameter's gradient.
``saved`` is handed to the caller and never kept on the layer, because one layer may run several times in a step (the
embedding and the head do, for multi-token prediction).
"""
