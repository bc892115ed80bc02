"""The steps that a cell goes through, in their order."""

from __future__ import annotations

from enum import StrEnum

from pinproof.errors import ConfigurationError, did_you_mean


class Stage(StrEnum):
    """One step of a cell. Members are in the order in which a cell meets them."""

    RESOLVE = "resolve"
    BUILD = "build"
    INSTALL = "install"
    INSPECT = "inspect"
    CORRECTNESS = "correctness"
    THROUGHPUT = "throughput"
    SANITIZE = "sanitize"

    @classmethod
    def parse(cls, text: str) -> Stage:
        """Return the stage called `text`. Raises ConfigurationError for an unknown name."""
        try:
            return cls(text)
        except ValueError:
            known = [stage.value for stage in cls]
            raise ConfigurationError(
                f"there is no stage {text!r}.{did_you_mean(text, known)}",
                remedy=f"use one of: {', '.join(known)}",
            ) from None

    @property
    def position(self) -> int:
        """Where the stage stands in a cell's way, from 0."""
        return list(Stage).index(self)

    @property
    def measures(self) -> bool:
        """True where the stage runs the cell's own program in its environment."""
        return self.position >= Stage.INSPECT.position

    @property
    def needs_target(self) -> bool:
        """True where the stage measures the GPU, so that it runs only on the cell's target."""
        return self.position > Stage.INSPECT.position


#: Seconds before a stage counts as hung; a matrix or an override may set another number.
TIMEOUTS = {
    Stage.RESOLVE: 600.0,
    Stage.BUILD: 4 * 3600.0,
    Stage.INSTALL: 3600.0,
    Stage.INSPECT: 600.0,
    Stage.CORRECTNESS: 3600.0,
    Stage.THROUGHPUT: 1800.0,
    Stage.SANITIZE: 7200.0,
}
