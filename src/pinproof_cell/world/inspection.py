"""What a cell really holds: packages, torch's build, the device, which imports and candidates work.

Each import runs in a child of its own: a module that crashes or hangs is evidence about that
module, and says nothing about the next. Run as a module this file is that child.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pinproof_cell import candidates
from pinproof_cell.request import SCHEMA, Request
from pinproof_cell.world import child, device, loaded

#: Longest time of one child, in seconds. `import vllm` has taken a minute on a cold disk.
TIMEOUT = 180.0
#: Which files of a distribution hold attention: extension modules, and kernels in Triton.
UNDER_TEST = {
    "flash-attn": ("*.so",),
    "vllm": (
        "vllm/vllm_flash_attn/*.so",
        "vllm/v1/attention/ops/triton_unified_attention.py",
        "vllm/v1/attention/ops/triton_attention_helpers.py",
        "vllm/attention/ops/triton_unified_attention.py",
    ),
}


def run(document: dict[str, Any]) -> dict[str, Any]:
    """Inspect the cell of a request; returns the inspect document, whatever is broken in it."""
    request = Request.parse(document)
    packages = installed()
    imports = [attempt(module, request) for module in modules(request)]
    build: dict[str, Any] = {
        "version": packages.get("torch"),
        "cuda": None,
        "git": None,
        "archs": [],
    }
    seen, ended = ask("device", [], request)
    return {
        "schema": SCHEMA,
        "stage": "inspect",
        "cell": request.cell,
        "python": platform.python_version(),
        "packages": packages,
        "torch": build | imports[0].pop("facts"),
        "device": seen or device.facts("cpu") | {"error": ended.reason},
        "imports": imports,
        "candidates": list(judge(request)),
        "extensions": list(extensions()),
    }


def modules(request: Request) -> tuple[str, ...]:
    """Return the modules whose import the cell promises.

    Of vLLM a CPU can only run its Triton kernel, which is imported without vLLM.
    """
    names = ["torch", "triton"]
    if request.asks_for("flash-attn"):
        names.append("flash_attn")
    if request.asks_for("vllm") and request.target != "cpu":
        names += ["vllm", "vllm.vllm_flash_attn"]
    return tuple(names)


def attempt(module: str, request: Request) -> dict[str, Any]:
    """Import `module` in a child; returns ok, the error's last line, a signal, the seconds.

    Of torch the child also tells its build, under ``facts``: one more start would cost seconds.
    """
    answer, ended = ask("import", [module], request)
    result = {
        "module": module,
        "ok": answer is not None,
        "error": _why(ended) if answer is None else None,
        "signal": ended.signal,
        "seconds": round(ended.seconds, 2),
    }
    return result | {"facts": answer or {}} if module == "torch" else result


def judge(request: Request) -> Iterator[dict[str, Any]]:
    """Yield each candidate that the cell must hold, and why it is not available.

    One child asks all of them; only where that ends badly has each a child of its own.
    """
    found = candidates.find(request.axes, "cpu" if request.target == "cpu" else "cuda")
    together, _ = ask("candidates", [candidate.name for candidate in found], request)
    for candidate in found:
        if together is not None:
            reason = together[candidate.name]
        else:
            alone, ended = ask("candidates", [candidate.name], request)
            reason = _why(ended) if alone is None else alone[candidate.name]
        yield {
            "name": candidate.name,
            "version": candidate.version,
            "origin": candidate.origin,
            "available": reason is None,
            "reason": reason,
        }


def ask(
    question: str, arguments: list[str], request: Request, timeout: float = TIMEOUT
) -> tuple[dict[str, Any] | None, child.Ended]:
    """Answer a question of `ANSWERS` in a child; returns its answer, or None, and its end."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "answer.json"
        program = ["-m", "pinproof_cell.world.inspection", str(out), request.target]
        ended = child.run([*program, question, *arguments], target=request.target, timeout=timeout)
        if not out.exists():
            return None, ended
        return json.loads(out.read_text(encoding="utf-8")), ended


def installed() -> dict[str, str]:
    """Return the version of every installed distribution, by its normalised name (PEP 503)."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        # The first on the path is the one that an import finds. A half-removed one has no name.
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return dict(sorted(found.items()))


def extensions() -> Iterator[dict[str, Any]]:
    """Yield path, size and sha256 of the files under test: they are what is pinned."""
    for name, patterns in UNDER_TEST.items():
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            path = Path(str(file.locate()))
            if any(fnmatchcase(str(file), pattern) for pattern in patterns) and path.is_file():
                yield {
                    "path": str(file),
                    "bytes": path.stat().st_size,
                    "sha256": loaded.sha256(path),
                }


def _why(ended: child.Ended) -> str:
    return ended.reason or "it ended Python with status 0"


def _import(_target: str, module: str) -> dict[str, Any]:
    imported = importlib.import_module(module)
    return _build(imported) if module == "torch" else {}


def _build(torch: Any) -> dict[str, Any]:
    # get_arch_list() is empty without a GPU, though the binary holds its flags all the same.
    flags = getattr(torch._C, "_cuda_getArchFlags", None)
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "git": torch.version.git_version,
        "archs": [] if flags is None else (flags() or "").split(),
        "cudnn": torch.backends.cudnn.version() if torch.version.cuda else None,
    }


def _device(target: str) -> dict[str, Any]:
    return device.facts(target)


def _candidates(_target: str, *names: str) -> dict[str, Any]:
    return {name: candidates.get(name).available() for name in names}


ANSWERS: dict[str, Callable[..., dict[str, Any]]] = {
    "import": _import,
    "device": _device,
    "candidates": _candidates,
}


def _answer(out: str, target: str, question: str, *arguments: str) -> None:
    # The answer stands before the interpreter ends: a crash in its exit is no failed import.
    Path(out).write_text(json.dumps(ANSWERS[question](target, *arguments)), encoding="utf-8")


if __name__ == "__main__":
    _answer(*sys.argv[1:])
