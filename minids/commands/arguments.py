"""What was typed, before it is parsed."""

from __future__ import annotations


def value_of(option: str, arguments: list[str]) -> str | None:
    """The value of ``--option VALUE`` or ``--option=VALUE``, None where it is not there."""
    value = None  # the last one counts, as it does for every option
    for i, argument in enumerate(arguments):
        if argument == option and i + 1 < len(arguments):
            value = arguments[i + 1]
        if argument.startswith(option + "="):
            value = argument.split("=", 1)[1]
    return value


def given_options(arguments: list[str]) -> set[str]:
    """Names of the options that were typed, as fields: --model.n-group → model.n_group."""
    return {a[2:].split("=", 1)[0].replace("-", "_") for a in arguments if a.startswith("--")}
