"""Other models beside DeepSeek-V3."""

from minids.lab.analysis import models

ROWS = {row.name: row for row in models.comparison()}


def test_dense_totals():
    assert models.LLAMA_405B.total == 405_853_388_800
    assert models.QWEN_72B.total == 72_706_203_648
    assert round(models.DEEPSEEK_67B.total / 1e9) == 67


def test_isca_table_1():
    assert ROWS["Qwen2.5-72B"].cache_bytes == 327_680
    assert ROWS["Llama-3.1-405B"].cache_bytes == 516_096
    assert ROWS["DeepSeek-V3"].cache_bytes == 70_272
    assert ROWS["DeepSeek 67B"].cache_elements == 194_560


def test_training_gflop_of_dense_models():
    assert round(ROWS["Llama-3.1-405B"].training_flops / 1e9, 1) == 2473.2
    assert round(ROWS["Qwen2.5-72B"].training_flops / 1e9, 1) == 444.9
    assert round(6 * (models.QWEN_72B.layers * models.QWEN_72B.layer_parameters) / 1e9, 1) == 421.3
    assert round(6 * (models.LLAMA_405B.layers * models.LLAMA_405B.layer_parameters) / 1e9, 1) == 2409.9


def test_table_shows_every_model():
    table = models.format_comparison(list(ROWS.values()))
    assert all(name in table for name in ROWS) and len(ROWS) == 8
    assert all(len(line) < 120 for line in table.splitlines())
    assert "516,096  7.344" in table
