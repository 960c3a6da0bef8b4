"""How many of the MTP modules' guesses stand (DeepSeek-V3, section 5.4.3: 85 to 90 %): what speculation is worth on some texts.

Training that moves a model and leaves its modules behind lowers it; measured before and after it says whether that happened.
"""

from __future__ import annotations

from collections.abc import Sequence

from minids.errors import refuse
from minids.inference.generate import Prompt, Stop, stream
from minids.inference.speculative import Counts
from minids.model import DeepSeekV3


def acceptance(
    model: DeepSeekV3,
    prompts: Sequence[Prompt],
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    stop: Stop = (),
    seed: int = 0,
) -> float:
    """The share of the judged guesses that stand while ``prompts`` are continued, as many guesses a pass as there are modules;
    NaN where nothing was guessed. Greedily a guess stands if it is the model's own choice."""
    if isinstance(prompts, str | bytes) or not isinstance(prompts, Sequence) or not prompts:
        raise refuse("prompts", prompts, "must be a list, each of text or of token ids")
    counts = Counts()
    for i, prompt in enumerate(prompts):
        text = stream(model, prompt, max_new_tokens, temperature, stop=stop, seed=seed + i, speculative=True, counts=counts)
        for _ in text:
            pass
    return sum(counts.accepted) / sum(counts.submitted) if sum(counts.submitted) else float("nan")
