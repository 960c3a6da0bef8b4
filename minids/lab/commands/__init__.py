"""The commands of the lab, made like those of ``minids/commands``."""
