"""Tests of what a user reads when something is wrong."""

from pinproof.errors import ExitCode, PinproofError, ResolveError, did_you_mean


def test_a_message_says_what_happened_the_cause_and_the_next_step() -> None:
    error = PinproofError("the disk is full", cause="logs", remedy="free space")
    assert str(error).splitlines() == [
        "the disk is full",
        "  likely cause: logs",
        "  next step: free space",
    ]


def test_what_is_not_known_is_not_said() -> None:
    assert str(PinproofError("the disk is full")) == "the disk is full"


def test_every_class_of_error_ends_with_a_code_of_its_own() -> None:
    def kinds(of: type[PinproofError]) -> list[type[PinproofError]]:
        return [of, *(kind for sub in of.__subclasses__() for kind in kinds(sub))]

    codes = {kind.__name__: kind.exit_code for kind in kinds(PinproofError)}
    assert codes["ConfigurationError"] == 2
    assert codes["UnsafePinError"] == 1
    assert codes["NothingRanError"] == 3
    assert codes["InfrastructureError"] == 4
    assert ExitCode.OK not in codes.values()


def test_a_resolve_error_keeps_whether_the_combination_is_to_blame() -> None:
    assert ResolveError("no versions fit", conflict=True).conflict
    assert not ResolveError("no network", conflict=False).conflict


def test_the_nearest_known_word_is_offered_and_a_far_one_is_not() -> None:
    assert did_you_mean("hoper", ["cpu", "hopper"]) == " Did you mean 'hopper'?"
    assert did_you_mean("zzz", ["cpu", "hopper"]) == ""
