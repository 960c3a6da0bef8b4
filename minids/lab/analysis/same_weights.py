"""The same weights read by a model of another configuration: other routing, other angles, other arithmetic."""

from minids.checkpoint.streaming import StreamedDeepSeekV3
from minids.config import ModelConfig
from minids.model import DeepSeekV3


def same_weights(model: DeepSeekV3, config: ModelConfig, kind: type[DeepSeekV3] = DeepSeekV3) -> DeepSeekV3:
    """A model of ``config`` with the weights and routing biases of ``model``, copied by name; ``model`` may have more.

    A streamed model holds no weights: the new one reads the same folder.
    """
    if isinstance(model, StreamedDeepSeekV3):
        return StreamedDeepSeekV3(config, model.parameters.folder)
    other = kind(config, None, model.dtype)
    for p in other.parameters:
        p.value[...] = model.parameters[p.name].value
    for name, bias in other.parameters.buffers.items():
        bias[...] = model.parameters.buffers[name]
    return other
