"""What a source build reads, and the key that names it.

The key holds everything that the wheel depends on and nothing else: not the processor, not the
number of jobs, not the path of the tree. What a project does not read is left out: a vLLM of the
stable ABI is one wheel for every torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinproof.builds import project as projects
from pinproof.builds.project import Knobs
from pinproof.builds.source import Kind, Source
from pinproof.errors import ConfigurationError
from pinproof.evidence.evidence import digest_of
from pinproof.evidence.store import sha256
from pinproof.matrix import axis as axes

if TYPE_CHECKING:
    from pinproof.locks.lock import Lock, Pin
    from pinproof.matrix.cell import Cell

#: What a build needs beside torch; neither project declares it for --no-build-isolation.
TOOLS = ("pip", "setuptools<81", "wheel", "ninja", "packaging", "psutil", "setuptools-scm", "cmake")

#: The package that an installed flash-attn imports beside torch.
RUNTIME = {"flash-attn": ("einops",)}


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A patch file; ``sha256`` is of its contents."""

    path: str
    sha256: str

    @classmethod
    def read(cls, path: Path) -> Patch:
        """Look at a patch file. Raises ConfigurationError where there is none."""
        if not path.is_file():
            raise ConfigurationError(f"there is no patch {path}")
        return cls(path=str(path.resolve()), sha256=sha256(path))


@dataclass(frozen=True, kw_only=True)
class Build:
    """One wheel to be built from source.

    ``torch`` is the version that it is built against, "" where the wheel is for every torch;
    ``cuda`` the toolkit "13.0"; ``archs`` the GPU architectures, such as "120"; ``python`` "3.11";
    ``without`` features to leave out beside the profile's; ``env`` more variables; ``attention``
    another source of vLLM's FlashAttention; ``compiler`` and ``platform`` the host's.
    """

    source: Source
    torch: str
    cuda: str
    archs: str
    python: str
    profile: str = "stock"
    without: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    patches: tuple[Patch, ...] = ()
    attention: Source | None = None
    compiler: str = ""
    platform: str = ""

    @property
    def project(self) -> str:
        """What is built: flash-attn or vllm."""
        return self.source.project

    @property
    def knobs(self) -> Knobs:
        """What the project is told for these architectures and this profile."""
        return projects.knobs(self.project, self.archs, self.profile, self.without)

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of the build; those of the matrix win."""
        return {**self.knobs.env, **dict(self.env)}

    def inputs(self) -> dict[str, Any]:
        """Return everything that decides what the wheel holds."""
        attention, origin = self.attention, self.source
        release = origin.kind is Kind.RELEASE
        knobs = self.knobs
        edits = (*knobs.savings, *(knobs.attention_edits if attention else ()))
        return {
            "project": self.project,
            "source": f"{origin.kind} {origin.place if release else origin.identity}",
            "archive": origin.identity if release else "",
            "patches": [each.sha256 for each in self.patches],
            "torch": self.torch,
            "cuda": self.cuda,
            "archs": self.archs,
            "python": self.python,
            "env": self.variables,
            "attention": f"{attention.kind} {attention.identity}" if attention else "",
            "edits": [each.name for each in edits],
            "compiler": self.compiler,
            "platform": self.platform,
        }

    @property
    def key(self) -> str:
        """The sha256 that names the build: equal keys, one build."""
        return digest_of(self.inputs())

    @property
    def owner(self) -> str:
        """The name of the build in the plan and of its nox session."""
        return f"build-{self.key[:8]}"

    def to_json(self) -> dict[str, Any]:
        """Return the build as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Build:
        """Read what `to_json` wrote. Raises KeyError or TypeError for anything else."""
        values = dict(raw)
        for name in ("source", "attention"):
            if values[name] is not None:
                values[name] = Source(**{**values[name], "kind": Kind(values[name]["kind"])})
        values["patches"] = tuple(Patch(**each) for each in values["patches"])
        values["without"] = tuple(values["without"])
        values["env"] = tuple((name, text) for name, text in values["env"])
        return cls(**values)


def needed(cell: Cell) -> tuple[str, ...]:
    """Return the axes whose value has to be built from source for `cell`.

    flash-attn has no wheels on the index, so every version of it is built; vLLM only from git.
    """
    kinds = {name: axes.parse(name, cell.axis(name)).kind for name in ("flash-attn", "vllm")}
    built = []
    if kinds["flash-attn"] in (axes.Kind.VERSION, axes.Kind.GIT, axes.Kind.SPECIFIER):
        built.append("flash-attn")
    if kinds["vllm"] is axes.Kind.GIT:
        built.append("vllm")
    return tuple(built)


def of(
    cell: Cell,
    project: str,
    lock: Lock,
    *,
    torch: str,
    profile: str = "stock",
    commit: str = "",
    archive: Pin | None = None,
    cuda: str = "",
    attention: Source | None = None,
    env: tuple[tuple[str, str], ...] = (),
    patches: tuple[Patch, ...] = (),
    compiler: str = "",
    platform: str = "",
) -> Build:
    """Return the build of `project` for `cell` against that version of torch.

    `commit` is what a git reference resolved to, `archive` what the source archive of a release is
    known by; a moving name must not be part of a key. `cuda` is the release of the toolkit where
    the cell takes the one that is installed, `attention` another source of vLLM's FlashAttention.
    """
    value = axes.parse(project, cell.axis(project))
    if value.kind is axes.Kind.GIT:
        place, identity, kind = value.repository, commit or value.ref, Kind.GIT
    else:
        place = archive.version if archive else value.text
        identity, kind = archive.sha256 if archive else place, Kind.RELEASE
    source = Source(project=project, kind=kind, place=place, identity=identity)
    return Build(
        source=source,
        torch=torch if projects.reads_torch(source) else "",
        cuda=cuda or cell.axis("cuda"),
        archs=cell.target.removeprefix("sm_"),
        python=lock.python,
        profile=profile,
        env=env,
        patches=patches,
        attention=attention if project == "vllm" else None,
        compiler=compiler,
        platform=platform,
    )
