import pytest

from pinproof.errors import ConfigurationError, InfrastructureError
from pinproof.locks.conda import solve
from pinproof.locks.conda.spec import Environment

ASKED = Environment(
    name="cuda-13.0",
    channels=("conda-forge",),
    platforms=("linux-64",),
    dependencies=("python", "kernels"),
    declared=(("__cuda", "12.8"),),
)

#: As the solver says it, of two packages that ask for more than the machine has.
REASON = """\
Cannot solve the request because of: The following packages are incompatible
├─ kernels * cannot be installed because there are no viable options:
│  └─ kernels 1.0 would require
│     └─ __cuda_arch >=12.0, for which no candidates were found.
└─ nvcc * cannot be installed because there are no viable options:
   └─ nvcc 13.0 would require
      └─ __cuda >=13, for which no candidates were found.
"""


def refused(monkeypatch, kind, text):
    monkeypatch.setattr(solve, "_answer", lambda order: {"error": kind, "text": text})
    with pytest.raises((ConfigurationError, InfrastructureError)) as caught:
        solve.solve(ASKED, "linux-64")
    return caught.value


def test_every_virtual_package_that_was_missed_is_named_with_what_was_declared(monkeypatch):
    error = refused(monkeypatch, "unsolvable", REASON)
    assert "__cuda_arch >=12.0 is needed (the compute capability of the target" in error.what
    assert "it declares no __cuda_arch" in error.what
    assert "__cuda >=13 is needed" in error.what
    assert "it declares __cuda 12.8" in error.what
    assert "kernels 1.0 would require" in error.cause
    assert error.exit_code == 2


def test_a_long_explanation_is_cut_and_says_how_much_is_left_out(monkeypatch):
    error = refused(monkeypatch, "unsolvable", "\n".join(f"line {n}" for n in range(100)))
    lines = error.cause.splitlines()
    assert len(lines) == solve.LINES + 1
    assert lines[-1].strip() == f"... and {100 - solve.LINES} more lines"


def test_a_channel_that_cannot_be_read_is_the_machine_s_fault_and_tells_no_password(monkeypatch):
    text = (
        "error sending request for url (https://me:hunter2@host/t/tok3n/c/linux-64/repodata.json)"
    )
    error = refused(monkeypatch, "unreachable", text)
    assert error.exit_code == 4
    assert "hunter2" not in str(error)
    assert "tok3n" not in str(error)
    assert "host" in str(error)


def test_a_package_without_a_sha256_cannot_be_locked(monkeypatch):
    entry = {"name": "a", "version": "1", "build": "0", "url": "https://h/c/linux-64/a-1-0.conda"}
    found = {"packages": [{**entry, "md5": "0" * 32, "sha256": "", "depends": {}}]}
    monkeypatch.setattr(solve, "_answer", lambda order: found)
    with pytest.raises(ConfigurationError, match="gives no md5 and sha256"):
        solve.solve(ASKED, "linux-64")


@pytest.mark.parametrize("file", ["../a-1-0.conda", "linux-64/..", "a_b/a-1-0.conda"])
def test_an_address_that_leads_out_of_its_channel_is_not_locked(monkeypatch, file):
    entry = {"name": "a", "version": "1", "build": "0", "md5": "0" * 32, "sha256": "1" * 64}
    found = {"packages": [{**entry, "url": f"https://h/c/{file}", "depends": {}}]}
    monkeypatch.setattr(solve, "_answer", lambda order: found)
    with pytest.raises(ConfigurationError, match="gives no address of a package"):
        solve.solve(ASKED, "linux-64")


def test_a_password_in_the_address_of_a_package_does_not_reach_the_lock(monkeypatch):
    entry = {"name": "a", "version": "1", "build": "0", "md5": "0" * 32, "sha256": "1" * 64}
    url = "https://me:hunter2@host/t/tk-1/c/linux-64/a-1-0.conda"
    found = {"packages": [{**entry, "url": url, "depends": {"b": ">=1"}}]}
    monkeypatch.setattr(solve, "_answer", lambda order: found)
    (package,) = solve.solve(ASKED, "linux-64")
    assert package.url == "https://host/c/linux-64/a-1-0.conda"
