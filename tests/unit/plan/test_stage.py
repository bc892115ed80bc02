"""Tests of the stages and their order."""

import pytest

from pinproof.errors import ConfigurationError
from pinproof.plan.stage import TIMEOUTS, Stage


def test_a_cell_meets_the_stages_in_their_order() -> None:
    assert [str(stage) for stage in sorted(Stage, key=lambda stage: stage.position)] == [
        "resolve",
        "build",
        "install",
        "inspect",
        "correctness",
        "throughput",
        "sanitize",
    ]


def test_only_what_measures_kernels_needs_the_target() -> None:
    assert {stage for stage in Stage if stage.needs_target} == {
        Stage.CORRECTNESS,
        Stage.THROUGHPUT,
        Stage.SANITIZE,
    }
    assert {stage for stage in Stage if stage.measures and not stage.needs_target} == {
        Stage.INSPECT
    }


def test_every_stage_has_a_timeout() -> None:
    assert set(TIMEOUTS) == set(Stage)
    assert min(TIMEOUTS.values()) > 0


def test_an_unknown_stage_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'install'") as caught:
        Stage.parse("instal")
    assert "throughput" in caught.value.remedy
