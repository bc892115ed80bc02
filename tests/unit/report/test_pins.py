import re
import subprocess
import sys

import pytest
from judged import H100, cell, record
from wheels import make_wheel, sha256

from pinproof.errors import InfrastructureError, UnsafePinError
from pinproof.judge.judgement import Judgement
from pinproof.judge.verdict import Verdict
from pinproof.locks.installer import find_uv
from pinproof.locks.lock import Lock, Pin
from pinproof.plan.stage import Stage
from pinproof.report import pins
from pinproof.run import environment

SAFE = Judgement(
    verdict=Verdict.SAFE,
    reason="",
    limits=("Sk = 0 crashes in torch-cpu-flash",),
    worst_z=3.14,
    ratio=1.25,
    low=1.2,
    high=1.3,
    fastest="vllm-fa3",
    baseline="triton",
)
LOCK = Lock(
    python="3.12",
    platform="x86_64-manylinux_2_35",
    product=(
        Pin(name="torch", version="2.13.0+cpu", sha256="a" * 64, file="torch-2.13.0-x.whl"),
        Pin(name="triton", version="3.7.1", sha256="b" * 64, file="triton-3.7.1-x.whl"),
    ),
    harness=(Pin(name="pytest", version="9.2.0", sha256="c" * 64, file="pytest-9.2.0-x.whl"),),
)
EVIDENCE = {stage: record(stage, machine=H100) for stage in (Stage.INSPECT, Stage.CORRECTNESS)}


def write(tmp_path, **more):
    values = {"cell": cell(), "judgement": SAFE, "evidence": EVIDENCE, "lock": LOCK, **more}
    constraints, why, *_ = pins.write(
        values.pop("cell"),
        values.pop("judgement"),
        values.pop("evidence"),
        values.pop("lock"),
        tmp_path / "out",
        **values,
    )
    return constraints.read_text(), why.read_text()


@pytest.mark.parametrize("verdict", [each for each in Verdict if each is not Verdict.SAFE])
def test_a_cell_that_is_not_safe_is_refused_with_its_verdict_and_reason(tmp_path, verdict):
    with pytest.raises(UnsafePinError, match=f"is {verdict}") as caught:
        write(tmp_path, judgement=Judgement(verdict=verdict, reason="max|z| 157 > 25"))
    assert caught.value.cause == "max|z| 157 > 25"
    assert not (tmp_path / "out").exists()


def test_the_pins_hold_the_product_with_hashes_and_not_the_harness(tmp_path):
    constraints, _ = write(tmp_path)
    lines = [line for line in constraints.split("\n") if line and not line.startswith("#")]
    assert lines == [str(pin) for pin in LOCK.product]
    assert "pip install --require-hashes -r constraints.txt" in constraints


def test_what_the_machine_brought_is_named_and_not_installed(tmp_path):
    constraints, why = write(tmp_path, system={"torch": "2.11.0+cu130", "Jinja2": "3.1.6"})
    assert "#   Jinja2==3.1.6\n#   torch==2.11.0+cu130\n" in constraints
    assert "2 packages came with the machine" in why


def test_the_page_says_why_and_where_and_from_which_evidence(tmp_path):
    _, why = write(tmp_path, sources=["a mirror", "1 extra index"])
    for told in (
        "**SAFE**",
        "3.14",
        "vllm-fa3: 1.250 times the triton baseline, interval 1.200 to 1.300",
        "Sk = 0 crashes in torch-cpu-flash",
        "NVIDIA H100, driver 580.1",
        EVIDENCE[Stage.CORRECTNESS].digest,
        "2026-11-23",
        "a mirror, 1 extra index",
        "A default index does not have torch 2.13.0+cpu",
        "x86_64-manylinux_2_35",
    ):
        assert told in why


def test_a_machine_without_a_gpu_is_called_that(tmp_path):
    _, why = write(tmp_path, evidence={Stage.CORRECTNESS: record(Stage.CORRECTNESS)})
    assert "- no GPU; Some Processor; Linux" in why


def test_no_path_and_no_address_is_in_the_pins(tmp_path):
    for text in write(tmp_path, system={"torch": "2.11.0"}, sources=["the index"]):
        assert str(tmp_path) not in text
        assert not re.search(r"://|\.(org|com)\b|(^|\s)/\w+/", text)


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InfrastructureError):
        write(tmp_path)


def test_pins_install_and_give_the_cell_s_versions(tmp_path):
    wheels = tmp_path / "wheels"
    files = [make_wheel(wheels, "alpha", "1.0"), make_wheel(wheels, "beta", "2.0")]
    make_wheel(wheels, "beta", "3.0")
    product = (
        Pin(name="alpha", version="1.0", sha256=sha256(files[0]), file=files[0].name),
        Pin(name="beta", version="2.0", sha256=sha256(files[1]), file=files[1].name),
    )
    write(tmp_path, lock=Lock(python="3.11", product=product))
    home = tmp_path / "fresh"
    subprocess.run([find_uv(), "venv", "-q", "--python", sys.executable, home], check=True)
    install = [find_uv(), "pip", "install", "-q", "--require-hashes", "--offline", "--no-index"]
    where = ["--find-links", wheels, "--python", home / "bin/python"]
    subprocess.run([*install, *where, "-r", tmp_path / "out/constraints.txt"], check=True)
    assert environment.look(home / "bin/python").packages == {"alpha": "1.0", "beta": "2.0"}


def judged(number, *, limits=0, ratio=None, verdict=Verdict.SAFE, **axes):
    judgement = Judgement(verdict=verdict, reason="", limits=("limit",) * limits, ratio=ratio)
    return cell(number, **axes), judgement


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"limits": 0}, {"limits": 1, "ratio": 9.0}),
        ({"ratio": 1.2}, {"ratio": 1.1}),
        ({"ratio": 0.1}, {"ratio": None}),
        ({"triton": "3.10.0"}, {"triton": "3.9.0"}),
        ({"torch": "2.13.0", "triton": "3.6.0"}, {"torch": "2.11.0", "triton": "3.9.0"}),
        ({"triton": "3.6.0"}, {"triton": "bundled"}),
        ({"limits": 5}, {"limits": 0, "verdict": Verdict.UNVERIFIED}),
    ],
)
def test_the_best_cell_has_fewest_limits_then_most_speed_then_newest_versions(better, worse):
    first, second = judged(1, **better), judged(2, **worse)
    assert pins.best([first, second]).id == pins.best([second, first]).id == first[0].id


@pytest.mark.parametrize("known", [[], [judged(1, verdict=Verdict.UNSAFE)]])
def test_without_a_safe_cell_there_is_no_best_one(known):
    with pytest.raises(UnsafePinError, match="nothing to pin"):
        pins.best(known)


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        (Verdict.UNVERIFIED, "prove them first: nox -s matrix -- "),
        (Verdict.UNSAFE, "nox -s report"),
    ],
)
def test_the_next_step_without_a_safe_cell_is_to_run_or_to_read(verdict, told):
    with pytest.raises(UnsafePinError) as caught:
        pins.best([judged(1, verdict=verdict)])
    assert caught.value.remedy.startswith(told)
    assert "--matrix " in caught.value.remedy


def test_the_lock_of_the_conda_packages_below_goes_with_the_pins(tmp_path):
    lock = tmp_path / "cuda-13.0.conda-lock.yml"
    lock.write_text("version: 1\n")
    _, why = write(tmp_path, conda=lock)
    assert (tmp_path / "out" / lock.name).read_text() == "version: 1\n"
    assert f"conda-lock install --prefix DIR {lock.name}" in why
    assert "conda" not in write(tmp_path)[1]


def test_what_comes_from_an_index_of_nightlies_names_it_and_advises_to_archive(tmp_path):
    write(tmp_path, lock=Lock(python="3.11", indexes=("nightly/cu130",), product=LOCK.product))
    told = (tmp_path / "out" / "PINS.md").read_text()
    assert "comes from the index nightly/cu130" in told
    assert "archive the cell" in told
