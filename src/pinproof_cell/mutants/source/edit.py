"""One edit of a file of our kernels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KERNELS = Path(__file__).parents[2] / "kernels"


@dataclass(frozen=True)
class Edit:
    """Replace the text ``old``, which stands in the ``file`` of the kernels exactly once.

    ``needs`` are the features of the checks that can tell, with spaces between.
    """

    file: str
    id: str
    bug: str
    stands_for: str
    old: str
    new: str
    needs: str = ""


def edited(edit: Edit) -> str:
    """Return the file's source with one edit. Raises ValueError where its text moved on."""
    text = (KERNELS / edit.file).read_text(encoding="utf-8")
    if text.count(edit.old) != 1:
        raise ValueError(
            f"{edit.id}: {edit.old!r} stands {text.count(edit.old)} times in {edit.file}"
        )
    return text.replace(edit.old, edit.new)
