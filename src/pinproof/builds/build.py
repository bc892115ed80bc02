"""What a source build reads, its key, and each project's own knobs. Pure.

Upstream's knobs differ: flash-attn ignores TORCH_CUDA_ARCH_LIST and wants bare numbers in
FLASH_ATTN_CUDA_ARCHS; it takes only the word TRUE to build from source at all, else it swaps in
a wheel that it guesses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinproof.evidence.evidence import digest_of
from pinproof.matrix import axis as axes
from pinproof.matrix.axis import Kind

if TYPE_CHECKING:
    from pinproof.locks.lock import Lock
    from pinproof.matrix.cell import Cell

#: What a build needs beside torch; neither project declares it for --no-build-isolation.
TOOLS = ("pip", "setuptools<81", "wheel", "ninja", "packaging", "psutil", "setuptools-scm", "cmake")

#: The package that an installed flash-attn imports beside torch.
RUNTIME = {"flash-attn": ("einops",)}

#: What the serving profile leaves out of flash-attn: a third of the time of a stock build.
NOT_SERVED = ("BACKWARD", "DROPOUT", "ALIBI", "SOFTCAP")

#: Memory that one nvcc unit takes, in GiB: the largest measured was 6.9.
GIB_PER_JOB = 7.0


@dataclass(frozen=True, kw_only=True)
class Build:
    """One wheel to be built from source.

    ``source`` is a pip requirement ("flash-attn==2.8.3.post2", "vllm @ git+https://...@COMMIT");
    ``torch`` the version it is built against, since an extension of one torch does not load in
    another; ``archs`` the GPU architectures, such as "120"; ``python`` "3.11".
    """

    project: str
    source: str
    torch: str
    cuda: str
    archs: str
    python: str
    env: tuple[tuple[str, str], ...]

    def inputs(self) -> dict[str, object]:
        """Return everything that decides what the wheel holds."""
        return {
            "project": self.project,
            "source": self.source,
            "torch": self.torch,
            "cuda": self.cuda,
            "archs": self.archs,
            "python": self.python,
            "env": dict(self.env),
        }

    @property
    def key(self) -> str:
        """The sha256 that names the build: equal keys, one build."""
        return digest_of(self.inputs())

    @property
    def owner(self) -> str:
        """The name of the build in the plan and of its nox session."""
        return f"build-{self.key[:8]}"

    def variables(self, *, cores: int, memory_gib: float) -> dict[str, str]:
        """Return the environment variables of the build on a machine of that size."""
        jobs = max(1, min(cores, int(memory_gib * 0.9 / GIB_PER_JOB)))
        return {**dict(self.env), "MAX_JOBS": str(jobs), "NVCC_THREADS": "1"}

    def commands(self, python: str, out: str) -> tuple[tuple[str, ...], ...]:
        """Return the commands that leave the wheel in the directory `out`."""
        wheel = (python, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--verbose")
        only_source = ("--no-binary", self.project, "--no-cache-dir", "--wheel-dir", out)
        return ((*wheel, *only_source, self.source),)


def needed(cell: Cell) -> tuple[str, ...]:
    """Return the axes whose value has to be built from source for `cell`.

    flash-attn has no wheels on the index, so every version of it is built; vLLM only from git.
    """
    kinds = {name: axes.parse(name, cell.axis(name)).kind for name in ("flash-attn", "vllm")}
    built = []
    if kinds["flash-attn"] in (Kind.VERSION, Kind.GIT, Kind.SPECIFIER):
        built.append("flash-attn")
    if kinds["vllm"] is Kind.GIT:
        built.append("vllm")
    return tuple(built)


def of(
    cell: Cell, project: str, lock: Lock, *, torch: str, profile: str = "full", commit: str = ""
) -> Build:
    """Return the build of `project` for `cell` against that version of torch.

    `commit` is what a git reference resolved to; a moving name must not be part of a key.
    """
    value = axes.parse(project, cell.axis(project))
    if value.kind is Kind.GIT:
        source = f"{project} @ git+{value.repository}@{commit or value.ref}"
    elif value.kind is Kind.SPECIFIER:
        source = f"{project}{value.text}"
    else:
        source = f"{project}=={value.text}"
    arch = cell.target.removeprefix("sm_")
    return Build(
        project=project,
        source=source,
        torch=torch,
        cuda=cell.axis("cuda"),
        archs=arch,
        python=lock.python,
        env=_knobs(project, arch, profile),
    )


def _knobs(project: str, arch: str, profile: str) -> tuple[tuple[str, str], ...]:
    if project == "flash-attn":
        own = (("FLASH_ATTENTION_FORCE_BUILD", "TRUE"), ("FLASH_ATTN_CUDA_ARCHS", arch))
        if profile != "serving":
            return own
        macros = " ".join(f"-DFLASHATTENTION_DISABLE_{feature}" for feature in NOT_SERVED)
        return (*own, *((name, macros) for name in ("NVCC_APPEND_FLAGS", "CFLAGS", "CXXFLAGS")))
    return (("TORCH_CUDA_ARCH_LIST", f"{arch[:-1]}.{arch[-1]}"),)
