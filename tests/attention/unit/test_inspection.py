"""What inspection says of a cell, and that nothing in the cell can stop it."""

from __future__ import annotations

import hashlib
import sys

import pytest

from pinproof_cell import candidates
from pinproof_cell.request import Request
from pinproof_cell.world import child, device, inspection, nvml


def request(**axes) -> Request:
    return Request(cell="cpu-3f9a1c", target="cpu", axes=axes)


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A folder whose modules a child can import."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_a_module_that_crashes_is_recorded_with_its_signal(modules):
    (modules / "crashing.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGFPE)")
    found = inspection.attempt("crashing", request())
    assert (found["ok"], found["signal"]) == (False, "SIGFPE")
    assert found["error"] == "killed by SIGFPE"


def test_a_module_that_fails_is_recorded_with_the_last_line_of_its_error(modules):
    (modules / "failing.py").write_text("import no_such_library")
    found = inspection.attempt("failing", request())
    assert found["error"] == "ModuleNotFoundError: No module named 'no_such_library'"
    assert found["signal"] is None


def test_a_module_that_ends_python_with_success_has_not_been_imported(modules):
    (modules / "leaving.py").write_text("import os; os._exit(0)")
    assert not inspection.attempt("leaving", request())["ok"]


def test_a_module_that_hangs_is_given_up(modules):
    (modules / "hanging.py").write_text("import time; time.sleep(600)")
    answer, ended = inspection.ask("import", ["hanging"], request(), timeout=1.5)
    assert answer is None
    assert ended.timed_out
    assert ended.reason == "no end within 2 s"
    assert ended.signal is None


def test_a_grandchild_that_keeps_the_output_open_does_not_hold_the_stage():
    code = "import subprocess; subprocess.Popen(['sleep', '20'])"
    assert child.run(["-c", code], target="cpu", timeout=60).seconds < 15


def test_the_real_torch_tells_its_build():
    found = inspection.attempt("torch", request())
    assert found["ok"]
    assert found["facts"]["version"] == inspection.installed()["torch"]
    assert len(found["facts"]["git"]) == 40


def test_only_what_the_axes_ask_for_is_imported():
    assert inspection.modules(request(torch="2.13.0", vllm="none")) == ("torch", "triton")
    axes = {"flash-attn": "2.8.3", "vllm": "0.24.0"}
    asked = inspection.modules(Request(cell="sm90-3f9a1c", target="sm_90", axes=axes))
    assert asked[2:] == ("flash_attn", "vllm", "vllm.vllm_flash_attn")
    # Of vLLM a CPU runs one kernel, without vLLM.
    assert inspection.modules(request(vllm="0.24.0")) == ("torch", "triton")
    assert "flash_attn" not in inspection.modules(request(**{"flash-attn": "bundled"}))


def test_names_of_distributions_are_normalised():
    assert "typing-extensions" in inspection.installed()


def test_a_candidate_that_kills_its_child_does_not_hide_the_others(modules, monkeypatch):
    both = (candidates.get("triton-ref"), candidates.get("torch-cpu-flash"))
    monkeypatch.setattr(candidates, "find", lambda axes, device: both)
    (modules / "sitecustomize.py").write_text(
        "import os, sys\nif 'triton-ref' in sys.orig_argv: os.abort()\n"
    )
    found = {one["name"]: one for one in inspection.judge(request())}
    assert found["torch-cpu-flash"]["available"]
    assert found["triton-ref"]["reason"] == "killed by SIGABRT"


def test_the_extension_modules_under_test_are_hashed(tmp_path, monkeypatch):
    package = tmp_path / "flash_attn"
    package.mkdir()
    (tmp_path / "flash_attn_2_cuda.cpython-311.so").write_bytes(b"machine code")
    record = tmp_path / "flash_attn-2.8.3.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.8.3\n")
    (record / "RECORD").write_text("flash_attn_2_cuda.cpython-311.so,,\nflash_attn/__init__.py,,\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert list(inspection.extensions()) == [
        {
            "path": "flash_attn_2_cuda.cpython-311.so",
            "bytes": 12,
            "sha256": hashlib.sha256(b"machine code").hexdigest(),
        }
    ]


def test_kernels_in_triton_are_under_test_as_well(tmp_path, monkeypatch):
    name = "vllm/v1/attention/ops/triton_unified_attention.py"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("kernel")
    record = tmp_path / "vllm-9.9.9.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 9.9.9\n")
    (record / "RECORD").write_text(f"{name},,\nvllm/v1/attention/ops/common.py,,\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert [found["path"] for found in inspection.extensions()] == [name]


def test_nvidia_smi_is_read_where_torch_cannot_be_asked():
    line = "NVIDIA H100 80GB HBM3, 9.0, 580.95.05, 81559\n"
    found = device.parse_smi(line * 2)
    assert found is not None
    assert (found["name"], found["capability"]) == ("NVIDIA H100 80GB HBM3", "sm_90")
    assert (found["driver"], found["memory_gib"]) == ("580.95.05", 79.6)
    assert device.parse_smi("NVIDIA-SMI has failed because it could not reach the driver.") is None
    assert device.parse_smi("NVIDIA GB10, 12.1, 580.95.05, [N/A]")["memory_gib"] is None


def test_a_cpu_target_has_the_facts_of_its_processor():
    found = device.facts("cpu")
    assert (found["kind"], found["capability"], found["driver"]) == ("cpu", "cpu", None)
    assert found["name"]
    assert found["memory_gib"] > 0


def test_gauges_say_when_the_hardware_held_the_clock_down():
    calm = nvml.Gauges(sm_clock=1980, memory_clock=2619, power=650.0, temperature=60, throttle=0x4)
    hot = nvml.Gauges(sm_clock=1200, memory_clock=2619, power=500.0, temperature=92, throttle=0x40)
    assert (calm.disqualified, hot.disqualified) == (False, True)
