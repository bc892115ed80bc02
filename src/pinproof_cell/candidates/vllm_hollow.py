"""Modules of an installed vLLM without vLLM: what a machine that has no GPU can import of it.

`import vllm` needs its compiled parts and all that it depends on. Its Triton kernels need neither:
the real files are imported from where the distribution lies, below stand-ins for the package and
for the few modules of it that look for a platform.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any


class _Logger(logging.Logger):
    """vLLM's loggers can say a thing once."""

    def debug_once(self, *words: Any) -> None:
        """Say it."""
        self.debug(*words)

    info_once = warning_once = debug_once


class _Modes:
    """Kinds of quantized caches: a cache here is none of them."""

    NONE = 0

    def __getattr__(self, name: str) -> object:
        return object()


def load(name: str) -> ModuleType:
    """Import the module ``vllm.…`` of the installed distribution.

    Raises ModuleNotFoundError where there is no vLLM, or not that module in it.
    """
    try:
        where = Path(str(metadata.distribution("vllm").locate_file("vllm")))
    except metadata.PackageNotFoundError:
        raise ModuleNotFoundError("no vLLM is installed", name="vllm") from None
    with _stand_ins(name, where):
        return importlib.import_module(name)


@contextmanager
def _stand_ins(name: str, where: Path) -> Iterator[None]:
    """Put the stand-ins in the place of vLLM; afterwards it is as if nobody had imported it."""
    before = {key: sys.modules.pop(key) for key in list(sys.modules) if _ours(key)}
    packages = name.split(".")[:-1]
    for depth in range(1, len(packages) + 1):
        package = ModuleType(".".join(packages[:depth]))
        package.__path__ = [str(where.joinpath(*packages[1:depth]))]
        sys.modules[package.__name__] = package
    for key, content in _contents().items():
        module = ModuleType(key)
        vars(module).update(content)
        sys.modules[key] = module
    try:
        yield
    finally:
        for key in list(sys.modules):
            if _ours(key):
                del sys.modules[key]
        sys.modules.update(before)


def _ours(key: str) -> bool:
    return key.partition(".")[0] == "vllm"


def _contents() -> dict[str, Mapping[str, Any]]:
    """Return what the stand-ins hold, by the name of the module."""
    import torch
    import triton
    from triton import language

    platform = SimpleNamespace(
        fp8_dtype=lambda: torch.float8_e4m3fn,
        is_device_capability_family=lambda family: False,
        is_cuda_alike=lambda: False,
        is_cuda=lambda: False,
        is_rocm=lambda: False,
        is_xpu=lambda: False,
    )
    return {
        "vllm.logger": {"init_logger": _Logger},
        "vllm.platforms": {"current_platform": platform},
        "vllm.triton_utils": {"triton": triton, "tl": language, "HAS_TRITON": True},
        "vllm.v1.kv_cache_interface": {"KVQuantMode": _Modes()},
    }
