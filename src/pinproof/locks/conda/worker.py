"""The child that has rattler: ``python -m pinproof.locks.conda.worker VERB ...``.

``solve ORDER OUT`` and ``gone ORDER OUT`` read and leave JSON; ``install LOCK PREFIX CACHE`` fills
an environment, by another child whose verb is ``link``, and ``fetch LOCK CACHE PLATFORM`` only
keeps its packages. Rattler is imported nowhere else: its runtime ends many processes that called it
with a signal, 40 of 100 on a busy machine. So this one ends by ``os._exit``, when all is written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import rattler
from rattler import exceptions
from rattler.networking import Client
from rattler.package_streaming import download_to_path

from pinproof.errors import ConfigurationError, ExitCode, InfrastructureError, PinproofError
from pinproof.locks.conda import child, conda_lock, lockfile, packages
from pinproof.locks.conda import prefix as prefixes
from pinproof.locks.conda.spec import this_platform
from pinproof.locks.redact import redact


def solve(order: dict[str, Any]) -> dict[str, Any]:
    """Solve for one platform: ``{"packages": [...]}``, or ``{"error": kind, "text": ...}``.

    `order` names the ``channels``, ``dependencies``, ``platform`` and ``virtual`` packages.
    """
    try:
        found = asyncio.run(_solve(order))
    except exceptions.SolverError as error:
        return {"error": "unsolvable", "text": str(error)}
    except (exceptions.InvalidMatchSpecError, exceptions.InvalidVersionSpecError) as error:
        return {"error": "spec", "text": str(error)}
    except (exceptions.InvalidChannelError, exceptions.InvalidUrlError) as error:
        return {"error": "channel", "text": str(error)}
    except (exceptions.GatewayError, exceptions.FetchRepoDataError, exceptions.IoError) as error:
        return {"error": "unreachable", "text": str(error)}
    return {"packages": [_entry(record) for record in found]}


def gone(order: dict[str, Any]) -> dict[str, Any]:
    """Say which locked packages are not to be had: ``{"gone": [why, ...]}``, or as `solve`.

    `order` names the ``channels``, the ``platform`` and the ``lock``.
    """
    try:
        return {"gone": asyncio.run(_gone(order))}
    except exceptions.InvalidChannelError as error:
        return {"error": "channel", "text": str(error)}
    except (exceptions.GatewayError, exceptions.FetchRepoDataError, exceptions.IoError) as error:
        return {"error": "unreachable", "text": str(error)}


async def _gone(order: dict[str, Any]) -> list[str]:
    wanted = lockfile.read(Path(order["lock"])).of(order["platform"])
    found = await rattler.Gateway.from_config(_config(), client=_client()).query(
        order["channels"],
        [order["platform"], "noarch"],
        [each.name for each in wanted],
        recursive=False,
    )
    listed = {record.sha256.hex() for some in found for record in some if record.sha256}
    lines = []
    with tempfile.TemporaryDirectory(prefix="pinproof-conda-") as scratch:
        # A channel may take a broken package from its list, and leave it at its address.
        for each in wanted:
            if each.sha256 not in listed:
                try:
                    await packages.gather([each], Path(scratch), _download)
                except PinproofError as error:
                    lines.append(error.what)
    return lines


async def _solve(order: dict[str, Any]) -> list[rattler.RepoDataRecord]:
    gateway = rattler.Gateway.from_config(_config(), client=_client())
    found: list[rattler.RepoDataRecord] = await rattler.solve(
        order["channels"],
        [rattler.MatchSpec(text) for text in order["dependencies"]],
        gateway=gateway,
        platforms=[order["platform"], "noarch"],
        virtual_packages=[_virtual(name, text) for name, text in order["virtual"].items()],
    )
    return found


def _config() -> rattler.Config:
    """Return the user's own configuration: mirrors, proxies, certificates."""
    config: rattler.Config = rattler.Config.load_from_default_locations("rattler")
    return config


def _client() -> Client:
    return Client.from_config(_config())


def _virtual(name: str, text: str) -> rattler.GenericVirtualPackage:
    version, _, build = text.partition("=")
    return rattler.GenericVirtualPackage(
        rattler.PackageName(name), rattler.Version(version), rattler.BuildString(build or "0")
    )


def _entry(record: rattler.RepoDataRecord) -> dict[str, Any]:
    depends: dict[str, list[str]] = {}
    for text in record.depends:
        name, _, spec = text.partition(" ")
        depends.setdefault(name, []).append(spec)
    return {
        "name": record.name.normalized,
        "version": str(record.version),
        "build": str(record.build),
        "url": record.url,
        "md5": record.md5.hex() if record.md5 else "",
        "sha256": record.sha256.hex() if record.sha256 else "",
        "depends": {name: ",".join(filter(None, specs)) for name, specs in depends.items()},
    }


def install(
    lock_path: Path,
    prefix: Path,
    cache: Path,
    *,
    offline: bool,
    executable: str = "",
    source: Path | None = None,
    digest: str = "",
) -> int:
    """Make the environment `prefix` hold the packages of a lock, and return how many those are.

    `source` is an archive that is looked into first; with `executable` a conda installs. `digest`
    is that of the packages which the caller counts on: a lock may change while a run goes on.

    Raises PinproofError where the lock is damaged or another, where a package is not the one that
    it names, and as `prefix.replacing`.
    """
    lock = lockfile.read(lock_path)
    wanted = lock.of(this_platform())
    if not wanted:
        raise ConfigurationError(f"{lock_path.name} holds nothing for {this_platform()}")
    if digest and lock.digest(this_platform()) != digest:
        raise InfrastructureError(
            f"{lock_path.name} is not the lock that this was planned with",
            cause="the file was replaced since, such as by a git pull",
            remedy="run again: the plan is then made with the lock that is there",
        )
    prefixes.refuse_foreign(prefix)
    download = None if offline else _download
    archives = asyncio.run(packages.gather(wanted, cache, download, source))
    for archive in archives.values():
        _refuse_outside(archive)
    with prefixes.replacing(prefix):
        if executable:
            conda_lock.install(lock_path, archives, prefix, executable)
        else:
            # In a process of its own: rattler's threads link on after it gave up.
            child.ask("link", str(lock_path), str(prefix), str(cache))
    return len(wanted)


async def _download(url: str, into: Path) -> None:
    await download_to_path(_client(), url, into)


async def _link(lock_path: Path, prefix: Path, cache: Path) -> None:
    """Link the packages of a lock, whose archives were verified, into `prefix`."""
    wanted = lockfile.read(lock_path).of(this_platform())
    archives = {each.url: packages.place(each, cache) for each in wanted}
    read = rattler.LockFile.from_path(lock_path).default_environment()
    found = read.conda_repodata_records().get(this_platform(), []) if read else []
    records = [record for record in found if record.url in archives]
    if {record.url for record in records} != archives.keys():
        raise InfrastructureError(f"rattler reads other packages out of {lock_path.name} than we")
    for record in records:
        record.url = archives[record.url].as_uri()
    try:
        await rattler.install(
            records,
            prefix,
            package_cache=rattler.PackageCache(cache / "packages"),
            # Link scripts are programs of a package that would run outside of any cell.
            execute_link_scripts=False,
            show_progress=False,
            client=_client(),
            config=_config(),
        )
    except (exceptions.InstallerError, exceptions.TransactionError, exceptions.LinkError) as error:
        raise InfrastructureError(
            f"rattler could not install {lock_path.name}",
            cause="; ".join(redact(str(error)).split("\n"))[:300],
            remedy="check the disk, then try again",
        ) from None


def _refuse_outside(archive: Path) -> None:
    """Raise InfrastructureError where a package names files that would lie out of its prefix.

    Rattler extracts none of them, and does link what the list of a package names.
    """
    try:
        listed = rattler.PathsJson.from_package_archive(archive).paths
    except Exception as error:  # rattler has a class for each layer that can fail
        raise InfrastructureError(
            f"{archive.name} is not installed: its list of files cannot be read",
            cause=redact(str(error))[:200],
        ) from None
    for each in listed:
        path = PurePosixPath(each.relative_path)
        if path.is_absolute() or ".." in path.parts:
            raise InfrastructureError(
                f"{archive.name} is not installed: it names a file outside of its environment,"
                f" {str(path)[:100]!r}",
                remedy="find out why before you trust its channel",
            )


def fetch(lock_path: Path, cache: Path, platform: str) -> int:
    """Keep the packages of a lock for a platform, and return how many those are.

    Raises PinproofError as `install`.
    """
    wanted = lockfile.read(lock_path).of(platform)
    asyncio.run(packages.gather(wanted, cache, _download))
    return len(wanted)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="worker", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, paths in (
        ("solve", ("order", "out")),
        ("gone", ("order", "out")),
        ("fetch", ("lock", "cache")),
        ("link", ("lock", "prefix", "cache")),
        ("install", ("lock", "prefix", "cache")),
    ):
        verb = verbs.add_parser(name)
        for path in paths:
            verb.add_argument(path, type=Path)
        if name == "fetch":
            verb.add_argument("platform")
    verb.add_argument("--offline", action="store_true")
    verb.add_argument("--with", dest="executable", default="")
    verb.add_argument("--from", dest="source", type=Path)
    verb.add_argument("--digest", default="")
    return parser


def main(words: Sequence[str]) -> int:
    """Do what `words` say; return the exit code."""
    asked = _parser().parse_args(words)
    try:
        if asked.verb in ("solve", "gone"):
            order = json.loads(asked.order.read_text(encoding="utf-8"))
            answer = solve(order) if asked.verb == "solve" else gone(order)
            asked.out.write_text(json.dumps(answer), encoding="utf-8")
        elif asked.verb == "fetch":
            count = fetch(asked.lock, asked.cache, asked.platform)
            print(f"{count} packages of {asked.lock.name} for {asked.platform}")
        elif asked.verb == "link":
            asyncio.run(_link(asked.lock, asked.prefix, asked.cache))
        else:
            count = install(
                asked.lock,
                asked.prefix,
                asked.cache,
                offline=asked.offline,
                executable=asked.executable,
                source=asked.source,
                digest=asked.digest,
            )
            where = f"{asked.lock.name} are in {asked.prefix}"
            print(f"{count} packages of {where}, each as its sha256 says")
    except PinproofError as error:
        print(redact(f"pinproof: {error}"))
        return error.exit_code
    except Exception:
        print(redact(traceback.format_exc()))
        return ExitCode.INFRASTRUCTURE
    return ExitCode.OK


if __name__ == "__main__":
    # As an exception, so that an environment that was set aside is brought back.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)
