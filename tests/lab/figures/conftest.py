"""A small run for the pictures that look into one: two blocks with experts, three domains, a few steps."""

import pytest

from minids import ModelConfig, TrainConfig
from minids.training.run import Run

TEXTS = {
    "prose": "The river ran under the old bridge, and the children counted the boats that came back in the evening. ",
    "code": "def add(a, b):\n    return a + b\n\nfor i in range(10):\n    print(add(i, 2 * i))\n\n",
    "arithmetic": "7 + 5 = 12. 9 * 3 = 27. Tom has 4 apples and eats 1; 3 are left.\n",
}


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("figures")
    files = []
    for name, text in TEXTS.items():
        files.append(str(folder / f"{name}.txt"))
        (folder / f"{name}.txt").write_text("".join(f"{i}. {text}" for i in range(60)), encoding="utf-8")
    sizes = dict(num_hidden_layers=3, hidden_size=32, intermediate_size=48, moe_intermediate_size=16)
    model = ModelConfig.preset("tiny", **sizes, initializer_range=0.02)
    train = TrainConfig(
        steps=12, batch_size=4, context_length=32, warmup_steps=2, log_every=2, eval_every=6, eval_tokens=64,
        sample_every=0, save_every=12, workers=1, validation_share=0.3,
    )  # fmt: skip
    Run.start(folder / "run", model, train, files, "tiny", say=lambda line: None).run()
    return folder / "run"
