"""Changes that are made to a source tree before it is built: patches, and edits that we know."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pinproof.errors import ConfigurationError
from pinproof.run import process


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A text in a file of a tree, and what stands there instead; ``name`` says what it is for."""

    name: str
    file: str
    pattern: str
    replacement: str

    def apply(self, tree: Path) -> None:
        """Make the edit. Raises ConfigurationError unless the text stands there exactly once."""
        count = self.attempt(tree)
        if count != 1:
            raise ConfigurationError(
                f"{self.name}: {self.file} has the text to change {count} times, and not once",
                cause="this release of the source is written otherwise",
                remedy="build without it, or bring a patch of your own",
            )

    def attempt(self, tree: Path) -> int:
        """Make the edit if the text stands there exactly once; return how often it stands there."""
        path = tree / self.file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        changed, count = re.subn(self.pattern, self.replacement, text)
        if count == 1:
            path.write_text(changed, encoding="utf-8")
        return count


def apply(patches: Iterable[Path], tree: Path) -> None:
    """Apply patch files with git, each whole or not at all.

    Raises ConfigurationError for one that does not apply, or would change files outside of `tree`.
    """
    # The tree may lie in somebody's checkout, and git would then look for the files up there.
    env = process.inherited(GIT_CEILING_DIRECTORIES=str(tree.parent.resolve()))
    for patch in patches:
        if not patch.is_file():
            raise ConfigurationError(f"there is no patch {patch}")
        command = ["git", "apply", "--whitespace=nowarn", str(patch.resolve())]
        done = process.run(command, cwd=tree, env=env)
        if not done.ok:
            first = done.output.strip().partition("\n")[0].removeprefix("error: ")
            raise ConfigurationError(
                f"the patch {patch.name} does not apply: {first}",
                cause="it was made for another release, or is in the release already",
                remedy=f"try it by hand: git -C {tree} apply --check {patch.resolve()}",
            )
