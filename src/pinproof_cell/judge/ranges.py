"""Ranges of numbers and of versions, as data files write them: ``> 192, <= 256``, ``< 2.14``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CLAUSE = re.compile(r"(?:% *(?P<modulus>[1-9]\d*) *)?(?P<compare>==|!=|<=|>=|<|>) *(?P<bound>\S+)")

#: Public version identifiers of Python packages without their epoch; the local part says who built
#: it and not what it is. (packaging.python.org, "Version specifiers"; packaging itself may not be
#: there.)
_VERSION = re.compile(
    r"v?(?P<release>\d+(?:\.\d+)*)"
    r"(?:[._-]?(?P<phase>a|b|rc|alpha|beta|c|pre|preview)[._-]?(?P<serial>\d*))?"
    r"(?:(?:[._-]?post[._-]?|-)(?P<post>\d+))?"
    r"(?:[._-]?dev[._-]?(?P<dev>\d*))?"
    r"(?:\+[a-z0-9]+(?:[._-][a-z0-9]+)*)?",
    re.IGNORECASE,
)
_PHASES = {"a": -3, "alpha": -3, "b": -2, "beta": -2}  # all others are release candidates
_DEV, _CANDIDATE, _FINAL = -4, -1, 0


def version(text: str) -> tuple[Any, ...]:
    """Return a key that orders versions as pip does. Raises ValueError for what is none."""
    found = _VERSION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a version")
    release = tuple(int(part) for part in found["release"].split("."))
    while len(release) > 1 and release[-1] == 0:
        release = release[:-1]
    if found["phase"]:
        phase = _PHASES.get(found["phase"].lower(), _CANDIDATE)
    else:
        # 1.0.dev1 comes before 1.0a1, but 1.0.post1.dev1 after 1.0.
        phase = _DEV if found["dev"] is not None and found["post"] is None else _FINAL
    dev = float("inf") if found["dev"] is None else int(found["dev"] or 0)
    post = -1 if found["post"] is None else int(found["post"])
    return release, phase, int(found["serial"] or 0), post, dev


@dataclass(frozen=True)
class Range:
    """Clauses that must all hold; none of them is a range that holds everything."""

    text: str
    clauses: tuple[tuple[int, str, Any], ...]
    key: Callable[[Any], Any]

    @classmethod
    def parse(cls, text: str, key: Callable[[Any], Any] = float) -> Range:
        """Read clauses with a comma between them; `key` makes comparable values of their bounds.

        ``% 128 == 64`` compares the remainder. Raises ValueError for anything else.
        """
        clauses = []
        for clause in filter(None, map(str.strip, text.split(","))):
            found = _CLAUSE.fullmatch(clause)
            if found is None:
                raise ValueError(f"{clause!r} is no comparison such as '>= 2'")
            modulus = int(found["modulus"] or 0)
            if modulus and key is not float:
                raise ValueError(f"{clause!r}: only numbers have a remainder")
            clauses.append((modulus, found["compare"], key(found["bound"])))
        return cls(text, tuple(clauses), key)

    def holds(self, value: Any) -> bool:
        """Say if `value` lies in the range. Raises ValueError where it cannot be compared."""
        found = self.key(value)
        return all(
            _COMPARE[compare](found % modulus if modulus else found, bound)
            for modulus, compare, bound in self.clauses
        )
