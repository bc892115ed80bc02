"""The verb `fuzz`: what is wrong is found, made small, shown by a script; what is right is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import invented
import pytest

from pinproof_cell.fuzz import verb
from pinproof_cell.fuzz.groups import Answer, Group, Signature
from pinproof_cell.fuzz.interview import Interview, UnavailableError
from pinproof_cell.fuzz.search import Found, Hunt, search
from pinproof_cell.judge import defects
from pinproof_cell.suite.cases import Case
from pinproof_cell.world.child import Ended

SEARCHED = Path(__file__).with_name("searched.py")
SOURCE = Path(verb.__file__).parents[2]


def hunted(name: str, cases: int, children: int = 1) -> Found:
    return search(
        Hunt(
            candidate=f"{SEARCHED}:{name}",
            device="cpu",
            seconds=300.0,
            children=children,
            most=cases,
            say=lambda line: None,
        )
    )


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pinproof_cell", "fuzz", *words],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_is_found_in_a_kernel_that_is_right() -> None:
    found = hunted("right", 120, children=2)
    assert found.groups.all == []
    assert found.judged > 100
    assert found.met > 40


def test_one_defect_is_one_group_with_the_feature_that_it_needs() -> None:
    found = hunted("blind_to_softcap", 60)
    # Whether the output or the log-sum-exp tells is a signature of its own.
    group = max(found.groups.all, key=lambda each: each.count)
    assert all("softcap" in each.features for each in found.groups.all)
    assert group.features == {"softcap"}
    assert group.case.heads == group.case.batch == 1
    assert group.count > 5


def test_a_failure_is_named_by_the_known_defect_that_its_findings_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = invented.defect(f"{SEARCHED}:scaled")
    monkeypatch.setattr(defects, "load", lambda: (known,))
    groups = hunted("scaled", 6).groups.all
    assert {group.defect for group in groups if group.signature.status == "FAIL"} == {"invented"}


def test_a_death_is_a_finding_and_the_search_goes_on() -> None:
    found = hunted("mortal", 60)
    (group,) = found.groups.all
    assert str(group.signature) == "CRASH process SIGSEGV"
    assert group.features == {"alibi", "window"}
    assert (group.case.seqlen_q, group.case.head_dim) == (1, 8)
    # The cause is known: cases that would die of it are not run to no purpose.
    assert group.skipped > 0
    assert found.statuses["PASS"] > 30


def test_the_same_seed_finds_the_same() -> None:
    first, again = (hunted("blind_to_softcap", 30) for _ in range(2))
    assert first.statuses == again.statuses
    assert [group.case for group in first.groups.all] == [group.case for group in again.groups.all]


def test_a_child_answers_in_a_fork_and_lives_on() -> None:
    interview = Interview(f"{SEARCHED}:mortal", "cpu", 0)
    deadly = Case(4, 4, alibi=True, window=(1, 1))
    try:
        assert interview.ask(Case(4, 4)).status == "PASS"
        assert interview.ask(deadly, forked=True).signal == "SIGSEGV"
        assert interview.deaths == 0
        assert interview.ask(deadly).signal == "SIGSEGV"
        assert interview.deaths == 1
        assert interview.ask(Case(4, 4)).status == "PASS"
    finally:
        interview.close()


def test_a_provider_that_does_not_load_is_no_finding(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import os\nos.abort()\n")
    with pytest.raises(UnavailableError, match="SIGABRT"):
        search(Hunt(candidate=f"{broken}:f", device="cpu", seconds=5.0, say=lambda line: None))


def test_the_verb_writes_scripts_that_show_what_it_found(tmp_path: Path) -> None:
    result = tmp_path / "fuzz.json"
    done = run(
        *("--provider", f"{SEARCHED}:blind_to_softcap", "--cases", "40"),
        *("--seconds", "300", "--json", str(result)),
    )
    assert done.returncode == 1, done.stderr
    document: dict[str, Any] = json.loads(result.read_text())
    (group,) = document["groups"]
    assert group["shows"] is True
    assert group["script"].startswith(str(tmp_path / "fuzz-found"))
    assert Path(group["script"]).is_file()
    assert group["defect"] is None
    assert "softcap" in group["case"]
    assert group["case"] in done.stdout


@pytest.mark.parametrize(
    ("torch", "shows", "error"),
    [
        ("", None, "AttributeError: module 'torch' has no attribute 'Generator'"),
        ("raise ImportError('gone')", None, "ImportError: gone"),
        ("sys.exit(importlib.util.find_spec('pinproof_cell') is not None)", False, None),
        ("import os, signal; sys.argv[1:] and os.kill(os.getpid(), signal.SIGFPE)", True, None),
    ],
    ids=["fails where it calls the kernel", "fails", "does not show it", "shows it"],
)
def test_a_script_is_run_with_what_the_caller_has_and_without_us(
    torch: str, shows: bool | None, error: str | None,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What of torch the caller has says how it ends, and a script that fails shows nothing."""
    (tmp_path / "torch.py").write_text(f"import importlib.util, sys\n{torch}\n")
    monkeypatch.setenv("PYTHONPATH", f"{SOURCE}{os.pathsep}{tmp_path}")
    crash = Signature("CRASH", "process", "SIGFPE")
    text = {"check": "process", "statistic": "SIGFPE", "text": "killed by SIGFPE"}
    group = Group(crash, Case(1, 0), Answer("CRASH", (text,), "SIGFPE"), 0, Case(1, 0))
    device = {"capability": "cpu"}
    found = Found({"version": "2.13.0", "lse_on_empty_rows": 0.0, "device": device})
    found.groups.add(group)
    hunt = Hunt(candidate="torch-cpu-flash", device="cpu", seconds=1.0)
    verb.reproduce(hunt, found, tmp_path / "found")
    document = verb.document(hunt, found)
    (told,) = document["groups"]
    assert (told["shows"], told["script_error"]) == (shows, error)
    words = {True: "shows it", False: "does NOT show it alone", None: f"FAILED: {error}"}[shows]
    assert any(line.endswith(words) for line in verb.table(document))


OUT_OF_MEMORY = """\
Traceback (most recent call last):
  File "found/script.py", line 41, in <module>
    q = torch.randn(1, 33, 2, 64, dtype=torch.bfloat16, device="cuda")
torch.AcceleratorError: CUDA error: out of memory
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace \
below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.

"""
CHAINED = """\
KeyError: 'gone'
  ValueError: a line of the source, and no exception
During handling of the above exception, another exception occurred:
KeyboardInterrupt
the process ended with status 2; a negative one is a signal
"""


@pytest.mark.parametrize(
    ("ended", "error"),
    [
        (Ended(returncode=1, seconds=1.0, output=OUT_OF_MEMORY),
         "torch.AcceleratorError: CUDA error: out of memory"),
        (Ended(returncode=2, seconds=1.0, output=CHAINED), "KeyboardInterrupt"),
        (Ended(returncode=2, seconds=1.0, output="Errors: 2\nbad day\n\n"), "bad day"),
        (Ended(returncode=-9, seconds=9.0, output=OUT_OF_MEMORY, timed_out=True),
         "no end within 9 s"),
        (Ended(returncode=-11, seconds=1.0, output=OUT_OF_MEMORY), "killed by SIGSEGV"),
    ],
    ids=["advice of CUDA", "of several", "none named", "hangs", "is killed"],
)  # fmt: skip
def test_why_a_script_failed_is_the_exception_and_not_what_is_printed_after_it(
    ended: Ended, error: str
) -> None:
    assert verb.why_failed(ended) == error


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--candidate", "torch-gpu-flash"), "no candidate 'torch-gpu-flash'"),
        (("--provider", "gone.py:f"), "no file 'gone.py'"),
        (("--provider", "kernel.txt"), "FILE.py:NAME"),
        (("--provider", f"{SEARCHED}:nobody"), "has no callable 'nobody'"),
        ((), "--candidate"),
        (
            ("--candidate", "torch-cpu-flash", "--seconds", "-5"),
            "'-5' is not a positive number of seconds",
        ),
        (("--candidate", "torch-cpu-flash", "--cases", "0"), "'0' is not a whole number from 1"),
        (("--candidate", "torch-cpu-flash", "--children", "0"), "'0' is not a whole number"),
        (("--candidate", "torch-cpu-flash", "--out", "/proc/x"), "cannot write to /proc/x"),
    ],
)
def test_wrong_words_are_status_2_and_no_traceback(
    words: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    done = run(*words, "--json", str(tmp_path / "fuzz.json"))
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "fuzz " not in done.stdout, "it is told before the search"


def test_a_kernel_that_refuses_everything_is_no_pass(tmp_path: Path) -> None:
    done = run(
        *("--provider", f"{SEARCHED}:refusing", "--cases", "10"),
        *("--json", str(tmp_path / "fuzz.json")),
    )
    assert done.returncode == 1
    assert "nothing was judged" in done.stdout
    assert not (tmp_path / "fuzz-found").exists(), "nobody looks for scripts that are not there"
