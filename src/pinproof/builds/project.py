"""Each project's own knobs. Pure.

flash-attn ignores TORCH_CUDA_ARCH_LIST and wants bare numbers in FLASH_ATTN_CUDA_ARCHS; it takes
only the word TRUE to build from source at all, else it swaps in a wheel that it guesses. vLLM
takes its architectures with a point, and builds its FlashAttention 2 for sm_80 and as PTX whatever
they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from pinproof.builds.patching import Edit
from pinproof.builds.source import Kind, Source
from pinproof.errors import ConfigurationError, did_you_mean

PROFILES = ("full", "serving", "custom")

#: What the serving profile leaves out of flash-attn: less than a third of a full build's time.
NOT_SERVED = ("backward", "dropout", "alibi", "softcap")

#: From here on vLLM's modules use torch's stable ABI: one wheel serves every torch.
STABLE_VLLM = Version("0.28")

#: The architectures that flash-attn has a name for.
_FLASH_ARCHS = re.compile(r"(80|90|100|110|120)(;(80|90|100|110|120))*")


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """What a project is told: variables, the features left out, edits of a tree, memory per unit.

    ``gib_per_unit`` is the most that one run of the compiler takes. ``attention_edits`` are for
    the tree that vLLM builds its FlashAttention from.
    """

    env: dict[str, str]
    without: tuple[str, ...] = ()
    gib_per_unit: float = 7.0
    attention_edits: tuple[Edit, ...] = ()


def reads_torch(source: Source) -> bool:
    """Say if what is built loads only in the torch that it was built against."""
    if source.project != "vllm" or source.kind is not Kind.RELEASE:
        return True
    try:
        return Version(source.place) < STABLE_VLLM
    except InvalidVersion:
        return True


def knobs(project: str, archs: str, profile: str) -> Knobs:
    """Return the knobs of `project` for ``archs`` such as "120", or "90;120".

    Raises ConfigurationError for an unknown profile or project, and for an architecture that the
    project has no name for.
    """
    if profile not in PROFILES:
        raise ConfigurationError(
            f"there is no profile {profile!r}.{did_you_mean(profile, PROFILES)}",
            remedy=f"use one of: {', '.join(PROFILES)}",
        )
    if project == "flash-attn":
        return _flash_attn(archs, profile)
    if project == "vllm":
        return _vllm(archs)
    raise ConfigurationError(
        f"it is not known how {project} is built", remedy="build flash-attn or vllm"
    )


def _flash_attn(archs: str, profile: str) -> Knobs:
    if not _FLASH_ARCHS.fullmatch(archs):
        raise ConfigurationError(
            f"flash-attn has no name for the architecture {archs!r}",
            cause="it wants bare numbers, and code for 80 runs on 86 and 89 too",
            remedy="use 80, 90, 100, 110 or 120, with ; between several",
        )
    env = {"FLASH_ATTENTION_FORCE_BUILD": "TRUE", "FLASH_ATTN_CUDA_ARCHS": archs}
    if profile != "serving":
        return Knobs(env=env)
    macros = " ".join(f"-DFLASHATTENTION_DISABLE_{feature.upper()}" for feature in NOT_SERVED)
    env |= dict.fromkeys(("NVCC_APPEND_FLAGS", "CFLAGS", "CXXFLAGS"), macros)
    # The largest of a serving build that was measured took 4.2 GiB.
    return Knobs(env=env, without=NOT_SERVED, gib_per_unit=4.5)


def _vllm(archs: str) -> Knobs:
    if not re.fullmatch(r"\d{2,3}(;\d{2,3})*", archs):
        raise ConfigurationError(f"vLLM has no name for the architecture {archs!r}")
    dotted = [f"{each[:-1]}.{each[-1]}" for each in archs.split(";")]
    env = {"TORCH_CUDA_ARCH_LIST": ";".join(dotted), "VLLM_TARGET_DEVICE": "cuda"}
    native = Edit(
        name="native FlashAttention 2",
        file="CMakeLists.txt",
        pattern=r'(FA2_ARCHS )"8\.0\+PTX"',
        replacement=rf'\1"{";".join(dict.fromkeys(["8.0", *dotted]))}"',
    )
    return Knobs(env=env, attention_edits=(native,))
