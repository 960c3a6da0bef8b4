"""matplotlib, a part of which is imported when it is asked for: the lab can be imported where it is not installed."""

from importlib import import_module


def __getattr__(name: str):
    return getattr(import_module("matplotlib"), name, None) or import_module(f"matplotlib.{name}")
