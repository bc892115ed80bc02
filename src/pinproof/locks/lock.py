"""What a cell asks the resolver for, and the exact files that it got. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from pinproof.errors import ConfigurationError, ResolveError
from pinproof.evidence.evidence import digest_of
from pinproof.matrix import axis as axes
from pinproof.matrix.axis import Kind

if TYPE_CHECKING:
    from pinproof.matrix.cell import Cell
    from pinproof.matrix.matrixfile import Settings

#: What the checks need in a cell, whatever is under test. Triton runs our reference kernel; a
#: torch that brings its own Triton keeps it, since the harness is resolved after the product.
HARNESS = ("numpy>=1.26", "pytest>=8.4", "triton>=3.4")

#: The axes that are packages; `python` is the interpreter and `cuda` the build of torch.
PACKAGES = ("torch", "triton", "flash-attn", "vllm")

#: The specifier of a nightly: the resolver takes pre-releases of the package that bears it.
NIGHTLY = ">=0.dev0"

#: The first line of a lock file; the number grows when an older reader would misread the rest.
TITLE = "# pinproof lock 1"

_FILE = (
    r"(?P<name>[a-z0-9]+(?:-[a-z0-9]+)*)==(?P<version>[0-9A-Za-z.!+]+)"
    r" --hash=sha256:(?P<sha256>[0-9a-f]{64})  # (?P<file>[\w.!+-]+\.%s)"
)
_PIN = re.compile(_FILE % "whl", re.ASCII)
_SOURCE = re.compile(_FILE % r"(?:tar\.\w+|zip)", re.ASCII)
_HEADER = re.compile(r"# (python|platform|torch-backend|index) ([0-9A-Za-z_./-]+)", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel:
    """A wheel file on this machine, such as a finished build. ``sha256`` is its digest."""

    path: str
    sha256: str

    @property
    def file(self) -> str:
        """The name of the file, without its directory."""
        return self.path.rpartition("/")[2]

    @property
    def name(self) -> str:
        """The canonical name of the package."""
        return parse_wheel_filename(self.file)[0]

    @property
    def version(self) -> str:
        """The version with its local part."""
        return str(parse_wheel_filename(self.file)[1])


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything that decides which files a cell installs, but for the addresses of indexes.

    ``product`` is what is under test and ends up in the pins; ``harness`` is what only the
    checks need. ``constraints`` narrow both. ``excludes`` are names that are not resolved at
    all. ``platform`` is a platform name of uv, None for this machine. ``torch`` is the build of
    torch: "cpu", "cuda" (the default one), "cu130" and the like, or None without torch.
    ``indexes`` are the names of those that are asked beside the configured ones.
    ``sources`` are the releases whose source archives are asked for: what is built of them.
    """

    product: tuple[str, ...]
    harness: tuple[str, ...] = HARNESS
    constraints: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    python: str
    platform: str | None = None
    torch: str | None = None
    exclude_newer: str | None = None
    wheels: tuple[Wheel, ...] = ()
    indexes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def inputs(self) -> dict[str, object]:
        """Return the request as JSON values; wheels by name and sha256, without their place."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        # Lists, since evidence that is read back holds lists.
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in named.items()}
        values["wheels"] = sorted([wheel.file, wheel.sha256] for wheel in self.wheels)
        if not self.indexes:  # most requests have none, and are known without this key
            del values["indexes"]
        if not self.sources:
            del values["sources"]  # a request that builds nothing is known as it always was
        return values

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 that names this request."""
        return digest_of(self.inputs())


def request(
    cell: Cell,
    settings: Settings,
    narrowed: Iterable[str] = (),
    *,
    python: str,
    platform: str | None = None,
    system: Mapping[str, str] | None = None,
    wheels: Iterable[Wheel] = (),
    exclude_newer: str | None = None,
    harness: tuple[str, ...] = HARNESS,
    indexes: Iterable[str] = (),
    sources: tuple[str, ...] = (),
) -> Request:
    """Say what `cell` has to install.

    `narrowed` are the requirements that rules attach to the cell: they narrow what is
    installed and add nothing. `python` is used where the cell has no python axis. `system`
    holds name and version of every package that the interpreter of the `system` back end has;
    those are not resolved, unless a requirement by name forbids the version that is there.
    `indexes` are the names of those that have what no configured index has.

    Raises ResolveError (a conflict) where an axis and `system` disagree, ConfigurationError
    for ``installed`` without a `system` and for nightlies that only a listing could tell.
    """
    built = {wheel.name: wheel for wheel in wheels}
    here: dict[str, str] = {
        canonicalize_name(name): version for name, version in (system or {}).items()
    }
    product = [
        requirement
        for axis in PACKAGES
        if (requirement := _requirement(axis, cell.axis(axis, axes.implied(axis)), built, system))
    ]
    under_test = {canonicalize_name(Requirement(text).name) for text in product}
    for text in product:
        _agree(text, here)
    own = (*settings.requirements, *narrowed)
    replaced = {name for text in own if (name := _violated(text, here))} - under_test
    left_out = {canonicalize_name(name) for name in settings.without}
    interpreter = cell.axis("python")
    return Request(
        product=(*product, *settings.requirements),
        harness=harness,
        constraints=tuple(narrowed),
        excludes=tuple(sorted((here.keys() - replaced) | left_out)),
        python=python if interpreter == "none" else _minor(interpreter),
        platform=platform,
        torch=build_of_torch(cell),
        exclude_newer=exclude_newer,
        wheels=tuple(sorted(built.values(), key=lambda wheel: wheel.file)),
        indexes=tuple(dict.fromkeys(indexes)),
        sources=sources,
    )


def _requirement(
    axis: str, text: str, built: Mapping[str, Wheel], system: Mapping[str, str] | None
) -> str | None:
    if axis in built:
        return f"{axis}=={built[axis].version}"
    value = axes.parse(axis, text)
    match value.kind:
        case Kind.NONE | Kind.BUNDLED:
            return None
        case Kind.VERSION:
            return f"{axis}=={text}"
        case Kind.SPECIFIER:
            return f"{axis}{text}"
        case Kind.INSTALLED if system is not None:
            return axis
        case Kind.NIGHTLY if not value.back and not value.day:
            return f"{axis}{NIGHTLY}"
    remedy = {
        Kind.INSTALLED: 'give the matrix backend = "system", or a version',
        Kind.NIGHTLY: "lock the matrix: nox -s lock -- --matrix NAME",
        Kind.GIT: "build its wheel first",
    }[value.kind]
    # The remedy is in the sentence: a table shows no more than that.
    raise ConfigurationError(f"{axis} {text} cannot be resolved as it stands: {remedy}")


def _agree(text: str, system: Mapping[str, str]) -> None:
    """Raise where the system interpreter has another version than the axis asks for."""
    wanted = Requirement(text)
    name = canonicalize_name(wanted.name)
    if not system or (name in system and _satisfies(wanted, system[name])):
        return
    if name in system:
        what = f"the cell asks for {text}, and the system interpreter has {name} {system[name]}"
    elif wanted.specifier:
        return  # it comes on top
    else:
        what = f"the cell asks for the installed {name}, and the system interpreter has none"
    raise ResolveError(
        what,
        conflict=True,
        remedy='name the installed version in the matrix, write "installed", or use backend "uv"',
    )


def _violated(text: str, system: Mapping[str, str]) -> str | None:
    """Return the name in `text` if `system` has it in a version that `text` forbids."""
    wanted = Requirement(text)
    name = canonicalize_name(wanted.name)
    return name if name in system and not _satisfies(wanted, system[name]) else None


def _satisfies(wanted: Requirement, version: str) -> bool:
    if not wanted.specifier:
        return True
    try:
        return wanted.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def build_of_torch(cell: Cell) -> str | None:
    """Return the build of torch that `cell` wants, as `Request.torch` names it."""
    if cell.axis("torch") in ("none", "installed"):
        return None
    if cell.target == "cpu":
        return "cpu"
    cuda = axes.parse("cuda", cell.axis("cuda")).version
    return f"cu{cuda.major}{cuda.minor}" if cuda else "cuda"


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Pin:
    """One locked file: the package's canonical name, its version, its digest, the wheel's name."""

    name: str
    version: str
    sha256: str
    file: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}  # {self.file}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """The exact files that a cell installs, by name, version and sha256; never an address.

    ``product`` is what the pins hold, ``harness`` what only the checks need. ``torch_backend``
    is the index of torch builds that had to be named to uv ("cpu", "cu130"), "" for none;
    ``indexes`` are the names of the other indexes that the files are on, ``sources`` the source
    archives of what is built for the cell, where a committed lock names them.
    """

    python: str
    platform: str = ""
    torch_backend: str = ""
    indexes: tuple[str, ...] = ()
    sources: tuple[Pin, ...] = ()
    product: tuple[Pin, ...] = ()
    harness: tuple[Pin, ...] = ()

    @property
    def pins(self) -> tuple[Pin, ...]:
        """Every file, the product's first."""
        return (*self.product, *self.harness)

    def version(self, name: str) -> str | None:
        """Return the locked version of the package `name`, or None."""
        wanted = canonicalize_name(name)
        return next((pin.version for pin in self.pins if pin.name == wanted), None)

    def text(self) -> str:
        """Return the lock in the form that pip and uv read with ``--require-hashes``."""
        header = (
            ("python", self.python),
            ("platform", self.platform),
            ("torch-backend", self.torch_backend),
            *(("index", index) for index in self.indexes),
        )
        lines = [TITLE, *(f"# {key} {value}" for key, value in header if value)]
        lines += [f"# source {each}" for each in self.sources]
        for title, pins in (("# product", self.product), ("# harness", self.harness)):
            lines += [title, *map(str, pins)]
        return "\n".join(lines) + "\n"


def parse(text: str) -> Lock:
    """Read what `Lock.text` wrote.

    Raises ConfigurationError with the number of the first line that is anything else: an
    address, a pin without a hash, a package twice.
    """
    header: dict[str, str] = {}
    indexes: list[str] = []
    sources: list[Pin] = []
    parts: dict[str, list[Pin]] = {}
    part: list[Pin] | None = None
    seen: set[str] = set()
    lines = text.split("\n")
    if lines[0] != TITLE or lines[-1] != "":
        raise _broken(1, f"does not start with {TITLE!r}, or its end is missing")
    for number, line in enumerate(lines[1:-1], start=2):
        if match := _HEADER.fullmatch(line):
            header[match[1]] = match[2]
            indexes += [match[2]] if match[1] == "index" else []
        elif line.startswith("# source "):
            sources.append(source(line.removeprefix("# source "), number))
        elif line in ("# product", "# harness"):
            part = parts.setdefault(line[2:], [])
        elif part is not None and (match := _PIN.fullmatch(line)):
            if match["name"] in seen:
                raise _broken(number, f"names {match['name']} a second time")
            seen.add(match["name"])
            part.append(Pin(**match.groupdict()))
        else:
            raise _broken(number, "is not NAME==VERSION --hash=sha256:DIGEST  # FILE")
    if "python" not in header or len(parts) != 2:
        raise _broken(len(lines), "ends without a python, a product and a harness")
    return Lock(
        python=header["python"],
        platform=header.get("platform", ""),
        torch_backend=header.get("torch-backend", ""),
        indexes=tuple(indexes),
        sources=tuple(sources),
        product=tuple(parts["product"]),
        harness=tuple(parts["harness"]),
    )


def source(text: str, number: int = 1) -> Pin:
    """Read what names a source archive. Raises ConfigurationError for anything else."""
    match = _SOURCE.fullmatch(text)
    if match is None:
        raise _broken(number, "names no source archive")
    return Pin(**match.groupdict())


def _broken(number: int, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"this lock is damaged: line {number} {why}", remedy="delete it and resolve again"
    )
