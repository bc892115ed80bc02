"""What is known of each release, so that a combination can be refused before it is tried."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from packaging.version import Version

from pinproof.matrix import axis, expression, schema
from pinproof.matrix.axis import Kind, Value
from pinproof.matrix.expression import Expression, Look, Operand, Words
from pinproof.matrix.schema import Where, option

SHIPPED = Path(__file__).parents[1] / "data" / "facts.toml"

#: What is known only on the machine that runs, so that expansion takes it as unknown.
MACHINE = ("driver", "gcc", "glibc")

_VERSIONS = "the releases that this holds for; 2.9.* for a whole series, which a release overrides"
_FROM = "the oldest Python that has a wheel"
_BELOW = "the first Python that has none any more"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Torch:
    """A torch release as its wheel on the package index is."""

    versions: tuple[str, ...] = option(about=_VERSIONS, filled=True)
    cuda: str | None = option(about="the CUDA version that it was built with", default=None)
    cuda_builds: tuple[str, ...] | None = option(
        about="the CUDA versions that PyTorch's own index has builds for", default=None
    )
    archs: tuple[str, ...] | None = option(
        about="the architectures with machine code in libtorch_cuda.so, all of them", default=None
    )
    triton: str | None = option(about="the triton that it brings", default=None)
    cudnn: str | None = option(about="the cuDNN that it brings", default=None)
    nccl: str | None = option(about="the NCCL that it brings", default=None)
    python_min: str | None = option(about=_FROM, default=None)
    python_below: str | None = option(about=_BELOW, default=None)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Cuda:
    """A CUDA toolkit."""

    versions: tuple[str, ...] = option(about=_VERSIONS, filled=True)
    driver: str | None = option(about="the oldest driver that loads its PTX", default=None)
    gcc_below: str | None = option(about="the first gcc that nvcc refuses", default=None)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Triton:
    """A triton release."""

    versions: tuple[str, ...] = option(about=_VERSIONS, filled=True)
    ptxas: str | None = option(about="its ptxas", default=None)
    ptxas_blackwell: str | None = option(about="its ptxas for newer architectures", default=None)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FlashAttn:
    """A flash-attn release; its wheels are those on its release page."""

    versions: tuple[str, ...] = option(about=_VERSIONS, filled=True)
    wheel_torch_min: str | None = option(about="the oldest torch with a wheel", default=None)
    wheel_torch_below: str | None = option(about="the first torch without one", default=None)
    wheel_glibc: str | None = option(about="the oldest glibc that loads it", default=None)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Vllm:
    """A vLLM release as its wheel on the package index is."""

    versions: tuple[str, ...] = option(about=_VERSIONS, filled=True)
    torch: str | None = option(about="the torch that it pins", default=None)
    cuda_major: int | None = option(about="the CUDA runtime that it loads", default=None)
    glibc: str | None = option(about="the oldest glibc that loads it", default=None)
    flashinfer: str | None = option(about="the FlashInfer that it pins", default=None)
    transformers: str | None = option(about="what it asks of transformers", default=None)
    python_min: str | None = option(about=_FROM, default=None)
    python_below: str | None = option(about=_BELOW, default=None)


Release = Torch | Cuda | Triton | FlashAttn | Vllm


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """The release tables, and the values that an expression reads from them."""

    torch: tuple[Torch, ...] = option(about="torch releases", default=())
    cuda: tuple[Cuda, ...] = option(about="CUDA toolkits", default=())
    triton: tuple[Triton, ...] = option(about="triton releases", default=())
    flash_attn: tuple[FlashAttn, ...] = option(about="flash-attn releases", default=())
    vllm: tuple[Vllm, ...] = option(about="vLLM releases", default=())

    def of(self, axis_name: str, text: str) -> Mapping[str, Operand]:
        """Return what is known of one value: field name to fact, unknown fields left out."""
        return _of(self, axis.parse(axis_name, text))

    def look(self, axes: Mapping[str, str], others: Mapping[str, Operand]) -> Look:
        """Return how an expression sees a combination.

        `axes` are the values of the axes that the combination names; `others` are the words that
        are no axis, such as ``target`` or ``driver``. A word in neither is unknown.
        """

        def look(name: str, attribute: str) -> Operand:
            if name not in axis.AXES:
                return others.get(name)
            value = axis.parse(name, axes.get(name, axis.implied(name)))
            if attribute == "kind":
                return str(value.kind)
            if value.kind is Kind.BUNDLED and "torch" in axes:
                value = _bundled(self, value, axes["torch"])
            return _of(self, value).get(attribute) if attribute else value

        return look


@functools.cache
def words(*others: str) -> Words:
    """Return the names of an expression over the axes, with their facts, and `others`."""
    known: dict[str, type[Release]] = {
        "torch": Torch,
        "cuda": Cuda,
        "triton": Triton,
        "flash-attn": FlashAttn,
        "vllm": Vllm,
    }
    table: dict[str, Mapping[str, bool]] = {name: {"kind": False} for name in axis.AXES}
    for name, release in known.items():
        # Annotations are strings here, since the module postpones them.
        table[name] = {"kind": False} | {
            field.name: str(field.type).startswith("tuple")
            for field in fields(release)
            if field.name != "versions"
        }
    return table | {name: {} for name in others}


def reads(names: frozenset[str]) -> frozenset[str]:
    """Return the axes that an expression over `names` depends on: bundled triton is torch's."""
    return names | {"torch"} if "triton" in names else names


@functools.lru_cache(maxsize=256)
def selector(text: str) -> Expression:
    """Parse an expression that selects cells: axes, their facts, target, matrix and id."""
    return expression.parse(text, words("target", "matrix", "id"))


def load(path: Path) -> Facts:
    """Read release tables. Raises ConfigurationError for whatever is wrong with them."""
    where = Where(path.name)
    facts = schema.convert(Facts, schema.read_toml(path), where)
    for field in fields(Facts):
        seen: set[str] = set()
        for index, release in enumerate(getattr(facts, field.name)):
            place = where.key(f"{field.name.replace('_', '-')}").item(index)
            for text in release.versions:
                if not re.fullmatch(r"\d+(\.\d+)*((\.post\d+)?|\.\*)", text, re.ASCII):
                    raise place.error(f"{text!r} is neither a version nor a series such as 2.9.*")
                if text in seen:
                    raise place.error(f"{text} is there twice")
                seen.add(text)
    return facts


@functools.cache
def shipped() -> Facts:
    """Return the release tables that come with Pinproof."""
    return load(SHIPPED)


@functools.lru_cache(maxsize=4096)
def _of(facts: Facts, value: Value) -> Mapping[str, Operand]:
    if value.version is None:
        return {}
    releases: Sequence[Release] = getattr(facts, value.axis.replace("-", "_"), ())
    found: dict[str, Operand] = {}
    # The series first, so that what is known of the release itself overrides it.
    for wanted in (False, True):
        for release in releases:
            if any(_names(text, value.version) is wanted for text in release.versions):
                found |= _known(release)
    if value.axis == "torch" and value.local:
        found = _of_build(found, value.local)
    return found


def _names(text: str, version: Version) -> bool | None:
    """Return True where `text` is that release, False where it is its series, else None."""
    if text.endswith(".*"):
        series = tuple(int(part) for part in text[:-2].split("."))
        return False if version.release[: len(series)] == series else None
    return True if Version(text) == version else None


def _known(release: Release) -> dict[str, Operand]:
    return {
        field.name: value
        for field in fields(release)
        if field.name != "versions" and (value := getattr(release, field.name)) is not None
    }


def _of_build(found: dict[str, Operand], local: str) -> dict[str, Operand]:
    """Return the facts of the torch build `local`: those of the index's wheel are another's."""
    match = re.fullmatch(r"cu(\d+)(\d)", local)
    cuda = f"{match[1]}.{match[2]}" if match else None
    if cuda == found.get("cuda"):
        return found
    built = ("cuda", "archs", "cudnn", "nccl")
    kept = {key: fact for key, fact in found.items() if key not in built}
    return kept | {"cuda": cuda} if cuda else kept


def _bundled(facts: Facts, value: Value, torch: str) -> Value:
    """Return a bundled triton with the version that its torch brings, if that is known."""
    text = facts.of("torch", torch).get("triton")
    return replace(value, version=Version(text)) if isinstance(text, str) else value
