"""Bars: none where the output is a file, and none within ``without_bars``."""

import sys

from minids.training.printing import progress_bar, without_bars


def test_whoever_has_a_bar_of_its_own_switches_others_off(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    def drawn():
        with progress_bar(3, 0) as bar:
            return not bar.disable

    assert drawn()
    with without_bars():
        assert not drawn()
    assert drawn(), "outside of it bars are drawn again"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert not drawn(), "into a file no bar is drawn"
