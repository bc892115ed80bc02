"""Candidates under compute-sanitizer: the real tool on a GPU, its recorded words elsewhere."""

from __future__ import annotations

import faulthandler
import json
import os
import re
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pinproof_cell.request import Request
from pinproof_cell.sanitizer import look, program, report, stage, tool
from pinproof_cell.sanitizer.calls import CALLS, by_id
from pinproof_cell.suite import inputs
from pinproof_cell.world import child
from pinproof_cell.world.journal import Journal

PLANTED = Path(__file__).with_name("planted.py")
DENSE, DECODE, BACKWARD = (
    next(case.id for case in CALLS if case.seqlen_q == queries and case.backward is backward)
    for queries, backward in ((113, False), (1, False), (113, True))
)
CLEAN = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"
READ = """\
========= COMPUTE-SANITIZER
========= Invalid __global__ read of size 16 bytes
=========     at _copy+0xec0 in planted.py:17
=========     by thread (18,0,0) in block (0,0,0)
=========     Access to 0x74505bcccca0 is out of bounds
=========
========= ERROR SUMMARY: 1 error
"""
#: Runs the program as the tool does, and then says what was recorded for the call in `when`.
STANDIN = """\
#!{python}
import json, os, subprocess, sys
words = sys.argv[1:]
if words == ["--version"]:
    sys.exit(print("NVIDIA (R) Compute Sanitizer\\nVersion 2026.4.0.0 (build 1) (public-release)"))
at = words.index({python!r})
caching = os.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING")
open({told!r}, "w").write(json.dumps([words[:at], caching]))
done = subprocess.run(words[at:])
said = {unread!r} if "--unread" in words else {text!r}
text = said if {when!r} in words else {clean!r}
open(words[words.index("--log-file") + 1], "w").write(text)
sys.exit(86 if "ERROR SUMMARY: 1" in text else done.returncode)
"""

UNWRITTEN = """\
========= Uninitialized __global__ memory read of size 2 bytes
=========     at void at::native::unrolled_elementwise_kernel<int>(int, T1)+0x160
=========     by thread (0,0,0) in block (0,0,0)
=========     Address 0x7f3d04829e80
=========
========= ERROR SUMMARY: 1 error
"""

RIGHT = """
import os
import planted
import torch

def whole(*inputs, **keywords):
    out, lse = planted.right(*inputs, **keywords)
    return torch.empty_like(out).copy_(out), torch.empty_like(lse).copy_(lse)

def unwritten(*inputs, **keywords):
    return planted.unwritten(*inputs, **keywords)

def right(*inputs, **keywords):
    return planted.right(*inputs, **keywords)

def dying(q, *inputs, **keywords):
    if q.shape[1] == 1:
        os.kill(os.getpid(), 11)
    return planted.right(q, *inputs, **keywords)

def raising(q, *inputs, **keywords):
    raise RuntimeError("bad day")

def telling(q, *inputs, **keywords):
    raise RuntimeError(f"caching off: {os.environ.get('PYTORCH_NO_CUDA_MEMORY_CACHING')}")

for each in (right, dying, raising, telling, whole, unwritten):
    each.supports = planted.right.supports
"""


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that looks at a provider with memcheck, on the CPU."""
    monkeypatch.setattr(tool, "TOOLS", {"memcheck": tool.TOOLS["memcheck"]})
    monkeypatch.setattr(look, "CALLS", [by_id(name) for name in (DENSE, DECODE, BACKWARD)])
    monkeypatch.setenv("PYTHONPATH", str(PLANTED.parent))
    (tmp_path / "mine.py").write_text(RIGHT, encoding="utf-8")

    def at(
        name: str = "right", text: str = CLEAN, when: str = "", unread: str | None = CLEAN
    ) -> dict[str, Any]:
        program = standin(tmp_path / "compute-sanitizer", text=text, when=when, unread=unread)
        candidate = f"{tmp_path / 'mine.py'}:{name}"
        return look.at(look.Subject(candidate=candidate, target="cpu", program=program))

    return at


def standin(path: Path, *, text: str = CLEAN, when: str = "", unread: str | None = CLEAN) -> Path:
    """Write a tool that says `text` of the call `when`; `unread` where nobody reads an answer."""
    told = str(path.with_name("told.json"))
    words: dict[str, Any] = {
        "python": sys.executable,
        "text": text,
        "when": when,
        "clean": CLEAN,
        "told": told,
    }
    words["unread"] = text if unread is None else unread
    path.write_text(STANDIN.format(**words), encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_candidate_without_a_hazard_is_clean_in_the_calls_that_it_supports(seen: Any) -> None:
    found = seen()
    assert found["reason"] is None
    assert found["device"]["kind"] == "cpu"
    (run,) = found["runs"]
    assert (run["tool"], run["status"], run["hazards"]) == ("memcheck", "CLEAN", [])
    assert run["calls"] == [DENSE, DECODE]


def test_a_hazard_has_its_kernel_its_address_and_the_call_that_shows_it(seen: Any) -> None:
    (run,) = seen(text=READ, when=DECODE)["runs"]
    assert run["status"] == "HAZARD"
    (hazard,) = run["hazards"]
    assert hazard["kernel"] == "_copy"
    assert hazard["address"] == "0x74505bcccca0 is out of bounds"
    assert hazard["calls"] == [DECODE]
    assert hazard["text"] == (
        "Invalid __global__ read of size 16 bytes in _copy at planted.py:17, "
        "address 0x74505bcccca0 is out of bounds"
    )


def test_a_count_without_words_that_we_know_is_a_hazard_all_the_same(seen: Any) -> None:
    unknown = "========= Something new at 0x1\n========= ERROR SUMMARY: 1 error\n"
    (run,) = seen(text=unknown, when=DENSE)["runs"]
    assert (run["status"], run["hazards"][0]["text"]) == (
        "HAZARD",
        "1 errors: in words that are not known: Something new at 0x1",
    )
    assert run["unknown"] == ["Something new at 0x1"]


def test_a_race_that_may_be_intended_is_listed_and_no_hazard(seen: Any) -> None:
    race = READ.replace(
        "Invalid __global__ read of size 16 bytes", "Warning: Race reported between"
    )
    (run,) = seen(text=race.replace("1 error", "0 errors"), when=DENSE)["runs"]
    assert run["status"] == "CLEAN"
    assert run["hazards"][0]["warning"]


def test_a_run_that_tells_of_nothing_but_a_misreading_is_not_clean(
    seen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "TOOLS", {"racecheck": ()})
    race = (
        "========= Error: Race reported between Write access at cudnn_x_sdpa_sm90_flash+0x90\n"
        "=========     and Read access at cudnn_x_sdpa_sm90_flash+0x100 [8 hazards]\n"
        "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)\n"
    )
    (run,) = seen(text=race, when=DENSE)["runs"]
    assert run["status"] == "UNCLEAR"
    assert "cannot follow bulk copies" in run["hazards"][0]["text"]


@pytest.mark.parametrize(
    ("name", "quiet", "status", "told"),
    [
        ("whole", True, "UNCLEAR", "no element of the answer is NaN"),
        ("unwritten", True, "HAZARD", "elements of the answer are NaN"),
        ("right", True, "HAZARD", "not known to come from poisoned memory"),
        ("whole", False, "HAZARD", "found while nobody read an answer too"),
    ],
)
def test_what_initcheck_says_of_our_own_reading_is_put_to_the_test(
    seen: Any, monkeypatch: pytest.MonkeyPatch, name: str, quiet: bool, status: str, told: str
) -> None:
    monkeypatch.setattr(tool, "TOOLS", {"initcheck": ()})
    unread = CLEAN if quiet else None
    (run,) = seen(name, text=UNWRITTEN, when=DENSE, unread=unread)["runs"]
    assert run["status"] == status
    (hazard,) = run["hazards"]
    assert told in hazard["text"]
    assert hazard["calls"] == [DENSE]
    assert hazard["warning"] is (status == "UNCLEAR")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("dying", CLEAN, f"in {DECODE}"),
        ("raising", CLEAN, "RuntimeError: bad day"),
        ("telling", CLEAN, "caching off: 1"),  # in the process that makes the calls
        ("right", CLEAN.splitlines()[0], "no summary"),
        ("right", f"========= Internal Sanitizer Error: it missed a launch\n{CLEAN}", "missed"),
    ],
)
def test_what_was_not_looked_at_to_the_end_is_incomplete_and_says_why(
    seen: Any, name: str, text: str, told: str
) -> None:
    (run,) = seen(name, text=text, when=DENSE)["runs"]
    assert run["status"] == "INCOMPLETE"
    assert told in run["reason"]


HANGS = """\
#!{python}
import json, sys, time
with open({count!r}, "a") as count:
    count.write("x")
if len(open({count!r}).read()) <= {hangs!r}:
    time.sleep(60)
words = sys.argv
with open(words[words.index("--journal") + 1], "a") as journal:
    for line in ({{"kind": "session"}}, {{"kind": "end", "call": words[-1], "status": "RAN"}}):
        journal.write(json.dumps(line) + "\\n")
open(words[words.index("--log-file") + 1], "w").write({clean!r})
"""


@pytest.mark.parametrize(
    ("hangs", "tries", "status"), [(0, 1, "CLEAN"), (1, 2, "CLEAN"), (9, 2, "INCOMPLETE")]
)
def test_a_run_that_hangs_before_the_candidate_is_loaded_is_made_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: int, tries: int, status: str
) -> None:
    monkeypatch.setattr(look, "CALLS", [by_id(DENSE)])
    count, program = tmp_path / "count", tmp_path / tool.NAME
    words = {"python": sys.executable, "count": str(count), "hangs": hangs, "clean": CLEAN}
    program.write_text(HANGS.format(**words), encoding="utf-8")
    program.chmod(0o755)
    subject = look.Subject(candidate="any", target="cpu", program=program, limit=3.0)
    run, _ = look._under(subject, "memcheck", tmp_path)
    assert (run["status"], run["tries"]) == (status, tries)
    assert len(count.read_text(encoding="utf-8")) == tries
    assert (run["reason"] or "").endswith("loaded, twice") is (status == "INCOMPLETE")


def test_what_shows_only_while_nobody_reads_an_answer_is_told_beside_the_reading(
    seen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "TOOLS", {"initcheck": ()})
    own = UNWRITTEN.replace("void at::native::unrolled_elementwise_kernel<int>(int, T1)", "own()")
    (run,) = seen("whole", text=UNWRITTEN, when=DENSE, unread=own)["runs"]
    reading, other = run["hazards"]
    assert run["status"] == "HAZARD"
    assert (reading["warning"], other["warning"]) == (True, False)
    assert other["kernel"] == "own()"
    assert other["note"] == "found while nobody read an answer"


def test_a_run_that_hangs_says_in_which_function_it_stood(tmp_path: Path) -> None:
    """What the interpreter writes of its threads is read; the innermost frame is what counts."""
    stack = tmp_path / "stack.txt"

    def waits() -> None:
        with stack.open("w", encoding="utf-8") as file:
            faulthandler.dump_traceback_later(0.05, file=file)
            try:
                until = time.monotonic() + 20
                # Functions of C have no frame of their own, so this one is the innermost.
                while not os.fstat(file.fileno()).st_size and time.monotonic() < until:
                    pass
            finally:
                faulthandler.cancel_dump_traceback_later()

    assert program.stood(stack) == ""
    waits()
    assert re.fullmatch(r"in waits \(.*test_sanitizer\.py:\d+\)", program.stood(stack))
    ended = child.Ended(returncode=-9, seconds=600.0, timed_out=True)
    ran = tool.Ran(ended=ended, report=report.parse(""))
    told = look._reason(ran, Journal(tmp_path / "journal.jsonl"), 2, program.stood(stack))
    assert told is not None
    assert "before the candidate was loaded, twice; it stood in waits (" in told


STRAYS = """\
#!{python}
import json, subprocess, sys, time
words = sys.argv
journal = words[words.index("--journal") + 1]
stray = [sys.executable, "-c", "import time; time.sleep(60)", journal]
pid = subprocess.Popen(stray, start_new_session=True).pid
with open(journal, "a") as file:
    file.write(json.dumps({{"kind": "program", "pid": pid}}) + "\\n")
time.sleep(60)
"""


def test_a_program_that_goes_on_when_the_tool_is_killed_is_ended_too(tmp_path: Path) -> None:
    tool_ = tmp_path / tool.NAME
    tool_.write_text(STRAYS.format(python=sys.executable), encoding="utf-8")
    tool_.chmod(0o755)
    subject = look.Subject(candidate="any", target="cpu", program=tool_, limit=2.0)
    look._ran(subject, "memcheck", ["--journal", str(tmp_path / "journal.jsonl")], tmp_path)
    (line,) = Journal(tmp_path / "journal.jsonl").lines("program")
    until = time.monotonic() + 20
    while not _is_dead(line["pid"]) and time.monotonic() < until:
        time.sleep(0.05)
    assert _is_dead(line["pid"])


def _is_dead(pid: int) -> bool:
    """Say if a process is gone, or waits for who started it to ask how it ended."""
    status = Path(f"/proc/{pid}/stat")
    return (
        not status.exists()
        or status.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    )


def test_a_process_that_has_the_number_of_another_is_left_alone() -> None:
    assert not child.end_strayed(os.getpid(), "words that stand in no command line")
    assert not child.end_strayed(2**22 + 1, "")


def test_the_program_is_told_where_to_say_in_which_function_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def run(program: Path, name: str, words: Any, **rest: Any) -> tool.Ran:
        asked.append(words)
        ended = child.Ended(returncode=0, seconds=1.0)
        return tool.Ran(ended=ended, report=report.parse(CLEAN))

    monkeypatch.setattr(tool, "run", run)
    subject = look.Subject(candidate="any", target="cpu", program=tmp_path, limit=100.0)
    look._once(subject, "memcheck", [DENSE], tmp_path)
    (words,) = asked
    assert words[words.index("--after") + 1] == "90.0"
    assert words[words.index("--stack") + 1] == str(tmp_path / "stack.txt")


@pytest.mark.parametrize(
    ("kinds", "where"),
    [
        ([], "before the candidate was loaded"),
        (["session", "begin"], f"in {DENSE}"),
        (["session", "begin", "end"], "after the last call"),
    ],
)
def test_a_run_without_an_end_says_where_it_stood(
    tmp_path: Path, kinds: list[str], where: str
) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for kind in kinds:
        journal.add(kind, call=DENSE, status="RAN")
    ended = child.Ended(returncode=-9, seconds=600.0, timed_out=True)
    ran = tool.Ran(ended=ended, report=report.parse(""))
    assert look._reason(ran, journal) == f"no end within 600 s, {where}"


def test_a_candidate_that_cannot_be_called_has_a_reason_and_no_run(seen: Any) -> None:
    found = seen("nothing")
    assert found["runs"] == []
    assert "has no callable 'nothing'" in found["reason"]


def test_the_tool_is_told_to_go_on_and_the_allocator_not_to_hide_anything(
    seen: Any, tmp_path: Path
) -> None:
    seen()
    words, caching = json.loads((tmp_path / "told.json").read_text(encoding="utf-8"))
    assert caching == "1"
    assert words[words.index("--destroy-on-device-error") + 1] == "kernel"
    assert words[words.index("--target-processes") + 1] == "application-only"
    assert words[words.index("--error-exitcode") + 1] == "86"
    assert words[words.index("--report-api-errors") + 1] == "no"
    assert int(words[words.index("--padding") + 1]) >= 1 << 16


def test_the_tool_is_found_on_the_path_in_a_toolkit_and_nowhere_else(tmp_path: Path) -> None:
    for folder in ("path", "home/bin", "wheel/compute-sanitizer"):
        (tmp_path / folder).mkdir(parents=True)
    on_path = standin(tmp_path / "path" / tool.NAME)
    assert tool.find({"PATH": str(on_path.parent)}) == on_path
    in_home = standin(tmp_path / "home" / "bin" / tool.NAME)
    assert tool.find({"PATH": "", "CUDA_HOME": str(tmp_path / "home")}) == in_home
    in_wheel = standin(tmp_path / "wheel" / "compute-sanitizer" / tool.NAME)
    assert tool.find({"PATH": "", "CUDA_PATH": str(tmp_path / "wheel")}) == in_wheel
    in_home.chmod(0o644)
    assert tool.find({"PATH": "", "CUDA_HOME": str(tmp_path / "home")}) != in_home
    assert tool.version(on_path) == "2026.4.0.0"


def test_without_a_gpu_or_the_tool_the_stage_says_so_and_is_incomplete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = Request(cell="c", target="cpu", axes={}).document()
    found = stage.run(request)
    assert "the target is cpu" in found["reason"]
    assert found["incomplete"] == [found["reason"]]
    assert found["candidates"] == []
    monkeypatch.setattr(tool, "find", lambda: None)
    found = stage.run({**request, "target": "sm_90"})
    assert "was not found" in found["reason"]


MISREAD = """\
========= COMPUTE-SANITIZER
========= Barrier error detected. Divergent thread(s) in block
=========     at cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_kernel0_0+0x50
=========     by thread (0,0,0) in block (0,0,0)
=========
"""


@pytest.mark.parametrize(("errors", "status"), [(1, "UNCLEAR"), (5, "HAZARD")])
def test_what_was_counted_and_not_printed_is_not_misread(
    seen: Any, monkeypatch: pytest.MonkeyPatch, errors: int, status: str
) -> None:
    """Behind a finding that the tool misreads there may be others that it did not print."""
    monkeypatch.setattr(tool, "TOOLS", {"synccheck": ()})
    text = f"{MISREAD}========= ERROR SUMMARY: {errors} errors\n"
    (run,) = seen(text=text, when=DENSE)["runs"]
    assert run["status"] == status
    told = [hazard["what"] for hazard in run["hazards"] if not hazard["warning"]]
    assert told == (["4 errors that the tool did not print"] if errors == 5 else [])
    assert run["unknown"] == []


@pytest.mark.parametrize(("errors", "status"), [(1, "UNCLEAR"), (2, "HAZARD")])
def test_what_is_printed_in_unknown_words_beside_a_misreading_is_told_in_them(
    seen: Any, monkeypatch: pytest.MonkeyPatch, errors: int, status: str
) -> None:
    monkeypatch.setattr(tool, "TOOLS", {"synccheck": ()})
    strange = [f"Something new of kind {number}" for number in range(4)]
    printed = "".join(f"========= {line}\n" for line in strange)
    text = f"{MISREAD}{printed}========= ERROR SUMMARY: {errors} errors\n"
    (run,) = seen(text=text, when=DENSE)["runs"]
    assert (run["status"], run["unknown"]) == (status, strange[:3])
    told = [hazard["text"] for hazard in run["hazards"] if not hazard["warning"]]
    words = "; ".join(strange[:3])
    assert told == [f"1 errors: in words that are not known: {words}"] * (errors - 1)


@pytest.mark.parametrize("case", CALLS, ids=lambda case: case.id)
def test_every_call_can_be_made(case: Any) -> None:
    call = inputs.generate(case, 0, "cpu")
    assert call.q.numel()
    assert by_id(case.id) is case


@pytest.mark.skipif(
    not torch.cuda.is_available() or tool.find() is None, reason="needs a GPU and compute-sanitizer"
)
@pytest.mark.parametrize(
    ("name", "by", "what", "kernel"),
    [
        ("beyond", "memcheck", "Invalid __global__ read", "_copy"),
        ("unwritten", "initcheck", "Uninitialized __global__", ""),
        ("right", None, "", ""),
    ],
)
def test_planted_faults_are_found_on_a_gpu_and_a_right_kernel_is_clean(
    name: str, by: str | None, what: str, kernel: str
) -> None:
    major, minor = torch.cuda.get_device_capability()
    request = Request(
        cell="c", target=f"sm_{major}{minor}", axes={}, candidates=(f"{PLANTED}:{name}",)
    )
    (entry,) = stage.run(request.document())["candidates"]
    runs = {run["tool"]: run for run in entry["runs"]}
    assert {tool for tool, run in runs.items() if run["status"] == "HAZARD"} == ({by} - {None})
    if by:
        hazard = runs[by]["hazards"][0]
        assert hazard["what"].startswith(what)
        assert kernel in hazard["kernel"]
        assert hazard["calls"]
