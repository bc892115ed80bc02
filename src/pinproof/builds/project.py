"""Each project's own knobs. Pure.

flash-attn ignores TORCH_CUDA_ARCH_LIST and wants bare numbers in FLASH_ATTN_CUDA_ARCHS; it takes
only the word TRUE to build from source at all, else it swaps in a wheel that it guesses. vLLM
takes its architectures with a point, and builds its FlashAttention 2 for sm_80 and as PTX whatever
they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from pinproof.builds.patching import Edit
from pinproof.builds.source import Kind, Source
from pinproof.builds.units import Union
from pinproof.errors import ConfigurationError, did_you_mean

PROFILES = ("stock", "serving", "custom")

#: What the serving profile leaves out of flash-attn: less than a third of a full build's time.
NOT_SERVED = ("backward", "dropout", "alibi", "softcap")

#: What flash-attn can be built without: each is a macro, and a call that needs it is refused.
FEATURES = (*NOT_SERVED, "local", "uneven_k")

#: Units of flash-attn by how long they take, the slowest first: measured on 16 cores for sm_90,
#: serving without uneven_k (seconds of the slowest of each: 135, 111, 101, 99, 87, 86, 72, 66; an
#: empty one took 17). Without the causal mask a unit holds kernels with a window too.
SLOWEST = (
    *(rf"flash_fwd_split_hdim{size}_\w+?16_sm" for size in (128, 64, 256, 96, 192, 32)),
    *(rf"flash_fwd_split_hdim{size}_" for size in (64, 128, 96)),
    *(r"flash_fwd_hdim128_\w+?16_sm", "flash_fwd_split_"),
    *(r"flash_fwd_hdim256_\w+?16_sm", "flash_fwd_hdim128_", "flash_fwd_hdim256_"),
    *("flash_fwd_hdim96_", "flash_fwd_hdim192_", "flash_fwd_", "flash_bwd_hdim", "flash_api"),
)

#: The backward's units; where it is left out they hold nothing that runs.
BACKWARD = Union(
    name="the units of no backward as one",
    listing="setup.py",
    folder="csrc/flash_attn/src",
    names=tuple(
        f"flash_bwd_hdim{size}_{dtype}{causal}_sm80.cu"
        for causal in ("", "_causal")
        for size in (32, 64, 96, 128, 192, 256)
        for dtype in ("fp16", "bf16")
    ),
    into="flash_bwd_none.cu",
)

#: Its forward hands the softmax out only under dropout; without that its kernels for it are dead.
#: Where uneven_k is there they are the same kernels as for an uneven head dimension.
DEAD = Edit(
    name="no kernels for the softmax of a dropout that is not there",
    file="csrc/flash_attn/src/flash_fwd_launch_template.h",
    pattern=r"BOOL_SWITCH\(return_softmax, ReturnSoftmaxConst",
    replacement="DROPOUT_SWITCH(return_softmax, ReturnSoftmaxConst",
)

#: From here on vLLM's modules use torch's stable ABI: one wheel serves every torch.
STABLE_VLLM = Version("0.28")

#: The architectures that flash-attn has a name for.
_FLASH_ARCHS = re.compile(r"(80|90|100|110|120)(;(80|90|100|110|120))*")


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """What a project is told: variables, the features left out, edits of a tree, memory per unit.

    ``gib_per_unit`` is the most that one run of the compiler takes, ``slowest`` are patterns of the
    units that take longest, in that order. ``savings`` leave out work that changes no kernel, where
    the tree is written as they expect. ``attention_edits`` are for the tree that vLLM builds its
    FlashAttention from.
    """

    env: dict[str, str]
    without: tuple[str, ...] = ()
    gib_per_unit: float = 7.0
    slowest: tuple[str, ...] = ()
    savings: tuple[Edit | Union, ...] = ()
    attention_edits: tuple[Edit, ...] = ()


def reads_torch(source: Source) -> bool:
    """Say if what is built loads only in the torch that it was built against."""
    if source.project != "vllm" or source.kind is not Kind.RELEASE:
        return True
    try:
        return Version(source.place) < STABLE_VLLM
    except InvalidVersion:
        return True


def knobs(project: str, archs: str, profile: str, without: Sequence[str] = ()) -> Knobs:
    """Return the knobs of `project` for ``archs`` such as "120", or "90;120".

    `without` are features to leave out beside those of the profile. Raises ConfigurationError for
    an unknown profile, project or feature, and for an architecture that the project has no name
    for.
    """
    if profile not in PROFILES:
        raise ConfigurationError(
            f"there is no profile {profile!r}.{did_you_mean(profile, PROFILES)}",
            remedy=f"use one of: {', '.join(PROFILES)}",
        )
    if project == "flash-attn":
        return _flash_attn(archs, profile, without)
    if project == "vllm" and not without:
        return _vllm(archs)
    if without:
        raise ConfigurationError(f"it is not known how {project} is built without {without[0]}")
    raise ConfigurationError(
        f"it is not known how {project} is built", remedy="build flash-attn or vllm"
    )


def _flash_attn(archs: str, profile: str, without: Sequence[str]) -> Knobs:
    if not _FLASH_ARCHS.fullmatch(archs):
        raise ConfigurationError(
            f"flash-attn has no name for the architecture {archs!r}",
            cause="it wants bare numbers, and code for 80 runs on 86 and 89 too",
            remedy="use 80, 90, 100, 110 or 120, with ; between several",
        )
    if unknown := [each for each in without if each not in FEATURES]:
        raise ConfigurationError(
            f"flash-attn has no feature {unknown[0]!r} to leave out."
            f"{did_you_mean(unknown[0], FEATURES)}",
            remedy=f"use some of: {', '.join(FEATURES)}",
        )
    env = {"FLASH_ATTENTION_FORCE_BUILD": "TRUE", "FLASH_ATTN_CUDA_ARCHS": archs}
    served = NOT_SERVED if profile == "serving" else ()
    left_out = tuple(each for each in FEATURES if each in served or each in without)
    if left_out:
        macros = " ".join(f"-DFLASHATTENTION_DISABLE_{feature.upper()}" for feature in left_out)
        env |= dict.fromkeys(("NVCC_APPEND_FLAGS", "CFLAGS", "CXXFLAGS"), macros)
    # The largest unit that was measured took 6.9 GiB in full, and 4.2 GiB for serving.
    most = 4.5 if set(NOT_SERVED) <= set(left_out) else 7.0
    savings: list[Edit | Union] = [BACKWARD] if "backward" in left_out else []
    if {"dropout", "uneven_k"} <= set(left_out):
        savings.append(DEAD)
    return Knobs(
        env=env, without=left_out, gib_per_unit=most, slowest=SLOWEST, savings=tuple(savings)
    )


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
