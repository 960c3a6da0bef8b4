"""The house colours are told apart by everyone: no two are near each other as they look with any common colour blindness.

Machado, Oliveira and Fernandes 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency": matrices of
severity 1 on linear RGB. Distances are those of CIE 1976 (L*, a*, b*), white D65; 2.3 is just seen side by side.
"""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from minids.lab.figures.style import COLOURS, SURFACES, THEMES, style
from minids.lab.figures.training import domain_colours

SIGHT = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
LEAST = 12


def lab(colour, sight):
    """L*, a*, b* of a colour as somebody sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = XYZ @ np.clip(np.array(SIGHT[sight]) @ linear, 0, 1) / XYZ.sum(axis=1)
    x, y, z = np.where(seen > (6 / 29) ** 3, np.cbrt(seen), seen / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def near(colours, sight):
    """Pairs that are hard to tell apart."""
    seen = {name: lab(colour, sight) for name, colour in colours.items()}
    return [(a, b) for a, b in combinations(seen, 2) if np.linalg.norm(seen[a] - seen[b]) < LEAST]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("sight", SIGHT)
def test_no_two_colours_are_near(theme, sight):
    at = THEMES.index(theme)
    colours = {name: both[at] for name, both in COLOURS.items()}
    for surface in ("background", "panel"):
        assert near(colours | {surface: SURFACES[surface][at]}, sight) == []


@pytest.mark.parametrize("theme", THEMES)
def test_many_domains_have_colours_of_their_own(theme):
    with style(theme):
        shades = domain_colours(["arithmetic", "code", "prose", "one", "two", "three", "four", "five", "six"])
    assert len(set(shades.values())) == 8 and shades["one"] == shades["six"], "five to spare, then they begin again"


def test_the_simulation_sees_what_it_should():
    """Red and green of one brightness: far apart for most, near for some."""
    pair = {"vermilion": "#D55E00", "olive": "#7D7A00"}
    assert not near(pair, "usual") and near(pair, "protanopia")
    assert lab("#FFFFFF", "usual") == pytest.approx([100, 0, 0], abs=0.01)
