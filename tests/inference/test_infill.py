"""Filling in: the prompt is the layout of training, and what comes back is the middle alone."""

import numpy as np
import pytest

import minids
from minids import DeepSeekV3, MinidsError, ModelConfig
from minids.checkpoint.tokenizer import byte_tokenizer
from minids.inference.infill import infill_ids

CONFIG = ModelConfig.preset(
    "tiny", hidden_size=16, num_hidden_layers=2, intermediate_size=24, moe_intermediate_size=8, num_attention_heads=2,
    q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8, max_position_embeddings=64,
)  # fmt: skip


def model(fim=True):
    tokenizer = byte_tokenizer().with_fim() if fim else byte_tokenizer()
    made = DeepSeekV3(CONFIG.replace(vocab_size=tokenizer.vocab_size))
    made.tokenizer = tokenizer
    return made


def test_the_prompt_is_the_layout_of_training():
    assert infill_ids(model(), "ab", "c") == [256, 258, *b"ab", 259, *b"c", 260]


def test_the_middle_ends_at_the_end_token_and_does_not_hold_it():
    filling = model()
    wanted = infill_ids(filling, "a", "b")
    new = minids.infill(filling, "a", "b", 9)
    assert new.tolist() == minids.generate(filling, wanted, 9, stop=[257]).tolist()
    head = filling.parameters["lm_head.weight"]
    head.value[...] = 0
    head.value[257] = np.sign(filling.hidden_states(np.array([wanted]))[0][0, -1])  # the end token is the likeliest at once
    assert minids.infill(filling, "a", "b", 9).tolist() == []


def test_what_cannot_be_filled_in_is_refused_in_a_line():
    with pytest.raises(MinidsError, match=r"suffix = 'b': this model was not trained to fill in.*--fim-rate"):
        infill_ids(model(fim=False), "a", "b")
    with pytest.raises(MinidsError, match="with the prompt it has 64 tokens, and this model reads 64"):
        infill_ids(model(), "a" * 59, "b")
