"""What is said of log files."""

from pathlib import Path

import pytest

from pinproof.errors import ConfigurationError
from pinproof.judge import logs
from pinproof.plan.stage import Stage

BUILD = """\
In file included from cuda_bf16.h:133,
cuda_fp16.h:4492:10: fatal error: nv/target: No such file or directory
ninja: build stopped: subcommand failed.
RuntimeError: Error compiling objects for extension
"""


def read(tmp_path: Path, text: str, stage: Stage | None = None) -> logs.Triaged:
    path = tmp_path / "build.log"
    path.write_text(text)
    (found,) = logs.read([path], stage)
    return found


def test_a_known_failure_is_told_with_its_cause_its_remedy_and_its_line(tmp_path: Path) -> None:
    found = read(tmp_path, BUILD)
    assert found.is_known
    (first, *_) = found.to_json()["findings"]
    assert first["id"] == "B23"
    assert first["line"].endswith("fatal error: nv/target: No such file or directory")
    assert "nvidia-cuda-cccl" in first["cause"]
    assert "next step: install cuda-toolkit" in found.text()
    assert found.text().index("B23") < found.text().index("likely cause")


def test_an_unknown_failure_shows_the_first_errors_and_never_an_exit_code(tmp_path: Path) -> None:
    found = read(tmp_path, "x.cu(7): error: no such thing\nmake: *** [all] Error 2\nexit code: 1\n")
    assert not found.is_known
    assert found.to_json()["errors"] == ["x.cu(7): error: no such thing"]
    assert "no known failure explains it" in found.text()
    assert "exit" not in found.text()


def test_the_stage_of_a_log_narrows_what_may_be_met(tmp_path: Path) -> None:
    text = "ModuleNotFoundError: No module named 'torch'\n"
    anywhere = {each.failure.id for each in read(tmp_path, text).findings}
    inspect = {each.failure.id for each in read(tmp_path, text, Stage.INSPECT).findings}
    assert inspect < anywhere


def test_a_log_that_is_not_there_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        logs.read([tmp_path / "no.log"])


def test_bytes_that_are_no_text_are_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"\xff\xfe\nnvcc fatal   : Unsupported gpu architecture 'compute_120'\n")
    (found,) = logs.read([path])
    assert found.findings[0].failure.id == "B01"
