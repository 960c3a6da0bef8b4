"""Which tokens end a text and how it is drawn, in every form that folders have."""

import json

import numpy as np
import pytest
from disk_samples import CONFIG

import minids
from minids.checkpoint.generation_json import GENERATION_NAME, Generation
from minids.checkpoint.streaming import load_streamed
from minids.errors import MinidsError
from minids.model import DeepSeekV3


@pytest.fixture
def folder(tmp_path):
    minids.save(DeepSeekV3(CONFIG), tmp_path / "model")
    return tmp_path / "model"


def says(folder, config=None, generation=None):
    """Change a folder's two files."""
    if config is not None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    if generation is not None:
        (folder / GENERATION_NAME).write_text(json.dumps(generation))
    return folder


@pytest.mark.parametrize(
    ("config", "generation", "stop"),
    [
        (None, None, (1,)),
        ({"eos_token_id": 4}, None, (4,)),
        ({"eos_token_id": [4, 9, 4]}, None, (4, 9)),
        ({"eos_token_id": []}, None, ()),
        ({"eos_token_id": None}, None, ()),
        ({"eos_token_id": 4}, {"eos_token_id": 7}, (7,)),
        ({"eos_token_id": [4, 5]}, {"eos_token_id": [7, 8, 9]}, (7, 8, 9)),
        ({"eos_token_id": [4, 5]}, {"temperature": 0.5}, (4, 5)),
        ({"eos_token_id": None}, {"eos_token_id": [3]}, (3,)),
    ],
)
@pytest.mark.parametrize("opened", [minids.load, load_streamed])
def test_every_token_that_ends_a_text(folder, config, generation, stop, opened):
    assert opened(says(folder, config, generation)).generation.stop == stop


def test_all_of_them_end_a_text(folder):
    model = minids.load(says(folder, {"eos_token_id": [4, 9, 17]}))
    for seed in range(12):
        new = minids.generate(model, [2], 60, temperature=1.0, seed=seed, stop=model.generation.stop)
        assert not np.isin(new[:-1], [4, 9, 17]).any()
        assert len(new) == 60 or new[-1] in (4, 9, 17)


@pytest.mark.parametrize(
    ("generation", "settings"),
    [
        ({}, {}),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.95}, {"temperature": 0.6, "top_p": 0.95}),
        ({"top_k": 20, "min_p": 0.1, "repetition_penalty": 1.2}, {"top_k": 20, "min_p": 0.1, "repetition_penalty": 1.2}),
        ({"do_sample": False, "temperature": 0.6, "top_p": 0.9}, {"temperature": 0.0}),
        ({"temperature": None, "top_k": None}, {}),
        ({"_from_model_config": True, "transformers_version": "4.33.1", "max_length": 20}, {}),
    ],
)
def test_how_it_is_drawn(folder, generation, settings):
    assert minids.load(says(folder, None, generation)).generation.settings() == settings


@pytest.mark.parametrize(
    ("config", "generation", "words"),
    [
        ({"eos_token_id": [1, 99]}, None, r"config\.json: eos_token_id = \[1, 99\]: must be token ids of 0 to 22"),
        ({"eos_token_id": [True]}, None, "eos_token_id"),
        (None, {"eos_token_id": "</s>"}, r"generation_config\.json: eos_token_id = '</s>'"),
        (None, {"eos_token_id": [[1]]}, "eos_token_id"),
        (None, {"temperature": "hot"}, "temperature = 'hot': must be a number"),
        (None, {"top_p": 1.5}, "top_p = 1.5"),
        (None, {"top_k": 2.5}, "top_k = 2.5: must be a whole number"),
    ],
)
def test_nonsense_is_refused_with_its_file(folder, config, generation, words):
    with pytest.raises(MinidsError, match=words):
        minids.load(says(folder, config, generation))


@pytest.mark.parametrize("generation", [{"eos_token_id": [4, 9], "temperature": 0.6}, {"do_sample": False}, {"top_k": 3}])
def test_it_travels(folder, tmp_path, generation):
    model = minids.load(says(folder, {"eos_token_id": [4, 9]}, generation))
    minids.save(model, tmp_path / "copy")
    assert minids.load(tmp_path / "copy").generation == model.generation
    minids.save(DeepSeekV3(CONFIG), tmp_path / "copy")  # of another model nothing stays
    assert minids.load(tmp_path / "copy").generation == Generation(stop=(1,))
