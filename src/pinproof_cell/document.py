"""Result files: JSON that any reader takes, whole or not there."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document` to `path`, whole or not at all."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as stream:
        try:
            json.dump(_plain(document), stream, indent=1, allow_nan=False)
            stream.flush()
            os.fsync(stream.fileno())
            Path(stream.name).replace(path)
        except BaseException:
            Path(stream.name).unlink(missing_ok=True)
            raise


def check_writable(folder: Path) -> None:
    """Raise OSError where no file can be made in `folder`."""
    with tempfile.TemporaryFile(dir=folder):
        pass


def _plain(value: Any) -> Any:
    """Return `value` with null for every number that JSON cannot say: NaN and the infinities."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
