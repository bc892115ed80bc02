"""`pinproof audit` on a real wheel from the index, beside NVIDIA's own reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from checkouts import ROOT

from pinproof.locks import download

#: A small wheel with code of six toolkits: linked and relocatable, compressed in two ways or not.
WHEEL = "bitsandbytes==0.50.2"


def pinproof(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "pinproof", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_a_wheel_of_the_index_is_read_as_cuobjdump_reads_it(tmp_path: Path) -> None:
    out = tmp_path / "audit.json"
    done = pinproof("audit", WHEEL, "--compare", "--json", str(out))
    document = json.loads(out.read_text())
    found = {Path(each["file"]).stem: each for each in document["audits"][0]["libraries"]}
    ours = {name: each for name, each in found.items() if "cuda" in name}
    assert len(ours) >= 6
    refused = {name for name, each in ours.items() if "cuobjdump fatal" in each["disagreement"]}
    assert {name for name, each in ours.items() if each["disagreement"]} == refused
    assert len(refused) <= 1, "cuobjdump 13 does not read one library of CUDA 12.1"
    assert done.returncode == len(refused)
    assert found["libbitsandbytes_cuda130"]["status"] == "NATIVE"
    assert found["libbitsandbytes_cuda118"]["status"] == "NONE"
    assert found["libbitsandbytes_cpu"]["status"] == "NO-GPU-CODE"


def test_a_release_without_a_wheel_is_told_in_words() -> None:
    done = pinproof("audit", "flash-attn==2.8.3.post2")
    assert done.returncode == 4
    wanted = f"flash-attn==2.8.3.post2 for Python {download.this_python()}"
    assert f"no index has a wheel of {wanted}" in done.stderr
    assert "published as source only" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_architecture_that_does_not_exist_is_told_before_anything_is_fetched() -> None:
    done = pinproof("audit", WHEEL, "--arch", "sm_12x")
    assert done.returncode == 2
    assert "'sm_12x' is no GPU architecture. Did you mean 'sm_121'?" in done.stderr
