"""The types of the numbers on the command line: each refuses in words what it cannot take."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError


def seconds(text: str) -> float:
    """Return a positive number of seconds. Raises ArgumentTypeError."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def seconds_or_none(text: str) -> float:
    """Return a number of seconds, 0 too. Raises ArgumentTypeError."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def how_many(text: str) -> int:
    """Return a whole number from 1. Raises ArgumentTypeError."""
    value = _number(text)
    if not (value >= 1 and value.is_integer()):
        raise ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(value)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
