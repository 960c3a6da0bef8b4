"""Numbers, rows and hints in words."""

import pytest

from minids.words import did_you_mean, si, table


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (671026419200, "", "671 G"),
        (70272, "B", "70.3 kB"),
        (999.4, "B", "999 B"),
        (999.6, "B", "1 kB"),
        (0, "", "0"),
        (0.25, "s", "0.25 s"),
        (-1234, "", "-1.23 k"),
        (3e27, "FLOP", "3e+03 YFLOP"),
    ],
)
def test_three_digits_and_a_prefix(value, unit, text):
    assert si(value, unit) == text


def test_no_value_is_shown_as_a_thousand_of_its_prefix():
    for digits in (3, 4, 5):
        for power in range(3, 20, 3):
            for share in (0.9994, 0.99949, 0.99951, 0.999996, 1.0, 1.0001):
                shown = float(si(share * 10**power, digits=digits).split()[0])
                assert 1 <= shown < 1000, (share, power, digits)


def test_columns_stand_under_their_heads():
    rows = [("tiny", 2_660_000, 0.5), ("deepseek-v3", 671, 12.25)]
    assert table(rows, ("model", "parameters", "x")).splitlines() == [
        "model        parameters      x",
        "tiny            2660000    0.5",
        "deepseek-v3         671  12.25",
    ]


def test_alignment_is_chosen_by_column_and_rows_may_be_short():
    text = table([("a", "bb", "c"), ("long", "b"), ()], align="rl", rule=True)
    assert text.split("\n") == ["   a  bb  c", "long  b", ""]
    assert table([(1,)], ("head",), rule=True).splitlines() == ["head", "────", "1"]
    assert table([]) == ""


def test_the_name_that_was_meant():
    assert did_you_mean("tinny", ["tiny", "small"]) == "did you mean tiny? "
    assert did_you_mean("zzz", ["tiny", "small"]) == ""
