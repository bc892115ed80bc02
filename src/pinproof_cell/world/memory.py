"""Whether an error says that the machine has no memory left: then it says nothing of a kernel."""

from __future__ import annotations

#: How torch says it, beside its own error for that on a GPU, which is called after it.
_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def is_full(error: BaseException) -> bool:
    """Say if `error` was raised for want of memory, of the machine or of its GPU."""
    names = {kind.__name__ for kind in type(error).__mro__}
    told = str(error).lower()
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or any(w in told for w in _WORDS)
