"""What the notebooks draw: a module for each of them, a function for each picture.

A function takes the numbers that its page has computed, by name, draws them and shows the picture with its alternative text.
It computes nothing itself but places and colours. Functions for sliders take numbers alone.
"""
