"""Tiny real wheels and a real package index on disk, for tests that need no network."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path


def make_wheel(
    directory: Path,
    name: str,
    version: str,
    *,
    requires: Iterable[str] = (),
    tag: str = "py3-none-any",
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write an installable wheel and return its path; by default it holds one module."""
    module = name.replace("-", "_")
    directory.mkdir(parents=True, exist_ok=True)
    info = f"{module}-{version}.dist-info"
    metadata = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    contents = {
        **(files or {f"{module}.py": f"VERSION = {version!r}\n"}),
        f"{info}/METADATA": "Metadata-Version: 2.1\n" + "\n".join(metadata) + "\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    rows = [f"{file},sha256={_digest(text)},{len(text)}" for file, text in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    path = directory / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in contents.items():
            # A fixed time: the same wheel is the same file, and has one sha256.
            archive.writestr(zipfile.ZipInfo(file, (2026, 1, 1, 0, 0, 0)), text)
    return path


def make_sdist(directory: Path, name: str, version: str, files: Mapping[str, str]) -> Path:
    """Write a source archive of these files, such as its setup.py, and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    root = f"{name.replace('-', '_')}-{version}"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    path = directory / f"{root}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, text in {"PKG-INFO": about, **files}.items():
            member = tarfile.TarInfo(f"{root}/{file}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def make_index(root: Path, files: Iterable[Path]) -> str:
    """Write a simple index over `files`, which it links to, and return its address."""
    packages: dict[str, list[Path]] = {}
    for file in files:
        packages.setdefault(file.name.partition("-")[0].replace("_", "-").lower(), []).append(file)
    for name, members in packages.items():
        page = root / name / "index.html"
        page.parent.mkdir(parents=True)
        links = (f'<a href="{file.as_uri()}">{file.name}</a>' for file in members)
        page.write_text("<!DOCTYPE html><html><body>" + "\n".join(links) + "</body></html>")
    return root.as_uri()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
