"""What a moving value of a matrix stood for when it was looked up. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pinproof.matrix.cell import Cell
from pinproof.matrix.schema import option

#: What a moving value is looked up by: axis, value, build, Python, platform.
Key = tuple[str, str, str, str, str]


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """What a moving value stood for when it was looked up.

    ``asked`` is the value as the matrix writes it, ``version`` the release or nightly that it
    names ("" for a commit that is built from source), ``index`` the name of the index that has
    it ("" for the package index), ``url`` the file's address relative to the place of that kind
    of index.
    """

    axis: str = option(about="the axis")
    asked: str = option(about="the value as the matrix writes it")
    build: str = option(about="the build of torch: cpu, cu130", default="")
    python: str = option(about="the Python", default="")
    platform: str = option(about="the platform, a name of uv", default="")
    version: str = option(about="the version that it names", default="")
    commit: str = option(about="the commit that it names", default="")
    index: str = option(about="the index that has it", default="")
    url: str = option(about="its file, relative to the place of the index", default="")
    sha256: str = option(about="the sha256 of that file", default="")
    when: str = option(about="when it was looked up")
    notes: tuple[str, ...] = option(about="what was passed over", default=())

    @property
    def text(self) -> str:
        """What it is, for people: the version, else the commit."""
        return self.version or self.commit

    @property
    def key(self) -> Key:
        """What was asked, for whom; a commit to be built is the same for everybody."""
        return self.axis, self.asked, self.build, self.python, self.platform


def applied(cell: Cell, values: Iterable[Fixed]) -> Cell:
    """Return `cell` with versions in the place of its moving values; a commit to build stays."""
    versions = {each.axis: each.version for each in values if each.index}
    return replace(cell, axes=tuple((name, versions.get(name, text)) for name, text in cell.axes))
