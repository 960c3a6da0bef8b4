"""A reward model (DeepSeek-V3, section 5.2.1): a copy of a model that says with one number what an answer is worth.

    h (B, T, d)  final states, after the last norm, of  [begin] prompt answer [end]
    r = wᵀ h     at the last token: the reward, (B,)

V3 begins its reward models from SFT checkpoints. The copy keeps all but the MTP modules and the output head, in whose place
stands w, zeros at first: before training every answer is worth 0. ``transformers`` opens its folder as a model for sequence
classification with one label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minids import arguments
from minids.checkpoint.config_json import reward_model_json
from minids.checkpoint.model_folder import filled, opened, write_model
from minids.checkpoint.names import SINGLE_NAME, shards
from minids.errors import MinidsError
from minids.inference.generate import Prompt, prompt_ids
from minids.layers.basic import Linear
from minids.layers.parameters import Array, Parameters
from minids.model import DeepSeekV3
from minids.model_checks import checked_dtype

HEAD = "score"
"""Name of w among the parameters: ``score.weight`` (1, d), as ``transformers`` calls it."""
HEAD_FILE = "reward_head.safetensors"
READ_AT_ONCE = 32
"""Answers judged side by side."""


class ScoredModel(DeepSeekV3):
    """The model with w in the place of its output head: its "logits" are rewards, (…, 1), of the text up to each token."""

    def make_head(self, parameters: Parameters) -> Linear:
        return Linear(parameters, HEAD, 1, self.config.hidden_size)


class RewardModel:
    """Call it with a prompt and an answer, and it says what the answer is worth: a reward for ``minids.grpo``."""

    def __init__(self, model: ScoredModel):
        self.model = model
        self.history: list[dict[str, Any]] = []  # of its training, where it was trained here: a line of numbers for each step

    def __repr__(self) -> str:
        return f"RewardModel: {sum(p.size for p in self.model.parameters):,} parameters, {self.model.dtype.name}"

    @property
    def sha256(self) -> str:
        """Of all weights: by it a run knows its reward model again."""
        return hashlib.sha256(self.model.parameters.values.tobytes()).hexdigest()

    @classmethod
    def copy_of(cls, base: DeepSeekV3) -> RewardModel:
        """The weights and routing biases of ``base``, and a head of zeros."""
        arguments.instance("model", base, DeepSeekV3, "a model: minids.load(folder), or minids.DeepSeekV3(config)")
        config = base.config.replace(num_nextn_predict_layers=0, mtp_own_matrices=False, tie_word_embeddings=True)
        model = ScoredModel(config, seed=None, dtype=base.dtype)
        for p in model.parameters:
            if p.name in base.parameters:
                p.value[...] = base.parameters[p.name].value
        for name, buffer in model.parameters.buffers.items():
            buffer[...] = base.parameters.buffers[name]
        model.tokenizer, model.generation = base.tokenizer, base.generation
        return cls(model)

    @classmethod
    def load(cls, folder: str | Path, dtype: DTypeLike = np.float32) -> RewardModel:
        """The reward model in a folder that ``save`` wrote, or in the newest checkpoint of a run of ``minids reward-model``."""
        dtype = checked_dtype(dtype)
        source, config, tokenizer = opened(folder, True, None, 0, False, reward_head=f"{HEAD}.weight")
        model = ScoredModel(config, seed=None, dtype=dtype)
        filled(model, source, tokenizer)
        return cls(model)

    def save(self, folder: str | Path) -> None:
        """Write a folder that ``load`` opens: the head in a file of its own, and config.json says what it is."""
        config, arrays = self.model.config, {p.name: p.value for p in self.model.parameters} | self.model.parameters.buffers
        head = {HEAD_FILE: {name: arrays.pop(name) for name in [f"{HEAD}.weight"]}}
        files = shards(config, arrays)
        if SINGLE_NAME in files:  # which transformers would open without a look at the index
            files = {"model-00001-of-00001.safetensors": files[SINGLE_NAME]}
        write_model(self.model, folder, reward_model_json(config), files | head)

    def __call__(self, prompt: Prompt, answer: Prompt) -> float:
        """What the answer is worth: texts, or token ids where there is no tokenizer."""
        return float(self.scores([(prompt, answer)])[0])

    def scores(self, pairs: Sequence[tuple[Prompt, Prompt]]) -> Array:
        """Rewards of (prompt, answer) pairs, some side by side: (P,) float64. What is the same is read once: a group of equal
        answers must not differ by how they were rounded, since GRPO divides by a group's deviation."""
        texts = [self.encoded(prompt, answer, "answer") for prompt, answer in pairs]
        keys = [text.tobytes() for text in texts]
        different = dict(zip(keys, texts, strict=True))
        worth = dict(zip(different, self.of_tokens(list(different.values())), strict=True))
        return np.array([worth[key] for key in keys])

    def encoded(self, prompt: Prompt, answer: Prompt, where: str) -> Array:
        """[begin] prompt answer [end], (n,) int32; ``where`` opens the line that refuses too long a one."""
        config = self.model.config
        begin, end = config.bos_token_id, config.eos_token_id
        before, after = (prompt_ids(self.model, part) if len(part) else [] for part in (prompt, answer))
        ids = [*([] if begin is None or before[:1] == [begin] else [begin]), *before, *after]
        ids += [] if end is None or ids[-1:] == [end] else [end]
        most = config.max_position_embeddings
        if not 0 < len(ids) <= most:
            has = f"prompt and answer have {len(ids)} tokens together"
            raise MinidsError(f"{where}: {has}; the reward model's context takes 1 to {most}")
        return np.array(ids, np.int32)

    def of_tokens(self, texts: Sequence[Array]) -> Array:
        """Rewards of texts, token ids (n,) each: (P,) float64."""
        found = [np.zeros(0)]
        for tokens, last in padded(texts):
            hidden = self.model.hidden_states(tokens)[0]  # (B, T, d)
            found.append(self.model.head.forward(hidden.reshape(-1, hidden.shape[-1])[last])[0][:, 0].astype(np.float64))
        return np.concatenate(found)


def padded(texts: Sequence[Array], at_once: int = READ_AT_ONCE) -> Iterator[tuple[Array, Array]]:
    """Texts of token ids, ``at_once`` at a time → tokens (B, T) int32, filled up with 0 at the end, where no token before
    sees it; and the place of each text's last token among B·T, (B,)."""
    for first in range(0, len(texts), at_once):
        some = texts[first : first + at_once]
        lengths = np.array([len(text) for text in some])
        tokens = np.zeros((len(some), lengths.max()), np.int32)
        for row, text in zip(tokens, some, strict=True):
            row[: len(text)] = text
        yield tokens, np.arange(len(some)) * tokens.shape[1] + lengths - 1
