"""What a log says went wrong."""

import pytest

from pinproof.judge import triage
from pinproof.plan.stage import Stage

CATALOGUE = triage.catalogue()
IN_LOGS = [failure for failure in CATALOGUE if not failure.leaves_no_log]

#: The stage of a cell at which an entry of each kind shows itself.
STAGE_OF = {
    "resolve": Stage.RESOLVE,
    "build": Stage.BUILD,
    "link": Stage.BUILD,
    "install": Stage.INSTALL,
    "import": Stage.INSPECT,
    "runtime": Stage.CORRECTNESS,
    "numerics": Stage.CORRECTNESS,
    "slow": Stage.THROUGHPUT,
}

UV_CONFLICT = """\
error: No solution found when resolving dependencies
  cause: Because vllm<=0.20.2 depends on torch==2.11.0 and you require torch==2.13.0, we can \
conclude that your requirements and vllm<=0.20.2 are incompatible.
         And because you require vllm==0.20.2, we can conclude that your requirements are \
unsatisfiable.
"""

UV_NO_NETWORK = """\
error: Request failed after 3 retries in 8.0s
  cause: Failed to fetch: http://no-such-host.invalid/wheels/torch/
  cause: error sending request for url (http://no-such-host.invalid/wheels/torch/)
  cause: client error (Connect)
  cause: dns error
  cause: failed to lookup address information: Name or service not known
"""

FLASH_ATTN_BUILD = """\
Building wheels for collected packages: flash-attn
  error: subprocess-exited-with-error
  \u00d7 Building wheel for flash-attn did not run successfully.
  │ exit code: 1
  ╰─> [9 lines of output]
      The detected CUDA version (13.2) has a minor version mismatch with the version that was \
used to compile PyTorch (13.0). Most likely this shouldn't be a problem.
      [1/73] nvcc -O3 -Werror -c csrc/error.cu -o build/error.o
      FAILED: build/flash_fwd_hdim128.o
      nvcc fatal   : Unsupported gpu architecture 'compute_120'
      ninja: build stopped: subcommand failed.
      RuntimeError: Error compiling objects for extension
  ERROR: Failed building wheel for flash-attn
"""


def test_the_catalogue_keeps_every_known_failure_with_an_unique_id():
    ids = [failure.id for failure in CATALOGUE]
    assert len(ids) == len(set(ids))
    assert len(ids) >= 73


@pytest.mark.parametrize("failure", CATALOGUE, ids=lambda failure: failure.id)
def test_an_entry_says_what_to_do_in_known_words(failure):
    assert failure.cause
    assert failure.remedy
    assert failure.severity in triage.SEVERITIES
    assert failure.stage in STAGE_OF
    assert failure.blame in ("combination", "machine")
    assert failure.regex.search(failure.sample)


@pytest.mark.parametrize("failure", IN_LOGS, ids=lambda failure: failure.id)
def test_the_sample_of_an_entry_triages_to_that_entry(failure):
    log = f"collecting things\n{failure.sample}\nexit code: 1\n"
    finding = triage.triage(log, STAGE_OF[failure.stage])
    assert finding is not None
    assert finding.failure.id == failure.id
    assert finding.line
    assert all(word in failure.sample for word in finding.line.split())


@pytest.mark.parametrize(
    "failure", [entry for entry in IN_LOGS if entry.blame == "machine"], ids=lambda entry: entry.id
)
@pytest.mark.parametrize("stage", Stage)
def test_a_machine_that_fails_is_recognised_at_every_stage(failure, stage):
    finding = triage.triage(failure.sample, stage)
    assert finding is not None
    assert finding.is_machine


def test_a_defect_that_leaves_no_log_is_never_found_in_one():
    assert triage.triage("NO_LOG_NVFP4_SM120", Stage.CORRECTNESS) is None


def test_the_cause_of_a_failed_build_wins_over_its_wrapper_and_over_warnings():
    finding = triage.triage(FLASH_ATTN_BUILD, Stage.BUILD)
    assert finding is not None
    assert finding.failure.id == "B01"
    assert finding.line == "nvcc fatal : Unsupported gpu architecture 'compute_120'"
    assert not finding.is_machine
    assert triage.reason(FLASH_ATTN_BUILD, Stage.BUILD) == f"{finding.line} [B01]"


def test_the_earliest_of_two_failures_explains_the_later():
    log = (
        "libcudart.so.13: cannot open shared object file\nFA2 is unavailable due to: ImportError\n"
    )
    finding = triage.triage(log, Stage.INSPECT)
    assert finding is not None
    assert finding.failure.id == "I05"


def test_a_known_failure_of_another_stage_is_not_offered():
    assert triage.triage("ModuleNotFoundError: No module named 'torch'", Stage.INSPECT) is None


def test_a_conflict_of_pins_is_the_combination_and_a_dead_network_is_the_machine():
    conflict = triage.triage(UV_CONFLICT, Stage.RESOLVE)
    network = triage.triage(UV_NO_NETWORK, Stage.RESOLVE)
    assert conflict is not None
    assert network is not None
    assert (conflict.failure.id, conflict.is_machine) == ("R02", False)
    assert network.is_machine


def test_a_warning_alone_is_found_but_is_no_reason_to_fail():
    log = "CMake Warning: Pytorch version 2.11.0 expected for CUDA build, saw 2.12.0 instead.\n"
    log += "thing.cu(12): error: identifier is undefined\n"
    finding = triage.triage(log, Stage.BUILD)
    assert finding is not None
    assert finding.failure.id == "B21"
    assert not finding.explains
    assert triage.reason(log, Stage.BUILD) == "thing.cu(12): error: identifier is undefined"


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("a\nerror: thing.c:3:1: error: expected ';'\nexit code: 1\n", "expected ';'"),
        (
            "Traceback (most recent call last):\n  File x\nValueError: bad shape\n",
            "ValueError: bad",
        ),
        (
            "CMake Error at CMakeLists.txt:106 (message):\n  no compiler here\n\n",
            "no compiler here",
        ),
        ("\x1b[31merror\x1b[0m: \x1b[1mno such thing\x1b[0m\n", "error: no such thing"),
        ("Building error.cc.o -Werror\n0 errors\nthe last word\nexit status 1\n", "the last word"),
        ("nox > Command python -c x failed with exit code 1\n", "the log holds no message"),
        ("subprocess.CalledProcessError: returned non-zero exit status 1.\n", "holds no message"),
        ("FAILED: [code=1] /x/unit3.o \nunit3.cpp:1:22: error: no such name\n", "no such name"),
        ("", "the log is empty"),
        ("error: Request failed after 3 retries\n  cause: no route to host\n", "no route to host"),
    ],
)
def test_the_first_error_of_an_unknown_log_is_its_message_and_never_its_exit_code(log, expected):
    first = triage.first_error(log)
    assert expected in first
    assert "exit" not in first


def test_the_first_error_is_a_few_lines_and_repeats_none():
    log = "".join(f"x.c:{number % 4}:1: error: e{number % 4}\n" for number in range(40))
    assert triage.first_error(log).count("\n") == 2


def test_an_id_of_the_catalogue_leads_to_its_cause_and_remedy():
    found = triage.lookup("B01")
    assert found is not None
    assert "nvcc" in found.cause
    assert triage.lookup("Z99") is None
