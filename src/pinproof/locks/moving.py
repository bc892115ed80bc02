"""Moving values made into fixed ones: nightlies into wheels, git references into commits."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from pinproof.clock import now
from pinproof.errors import ConfigurationError, ResolveError
from pinproof.locks import gitref, listing, nightly
from pinproof.locks.fixed import Fixed
from pinproof.locks.indexes import Places
from pinproof.locks.listing import File
from pinproof.locks.nightly import Wanted, fitting, usable
from pinproof.matrix.axis import Kind, Value

_COMMIT = re.compile(r"/([0-9a-f]{40})(?:/|$)")

#: What a torch nightly is installed with; both come from its own index.
VISION, TRITON = "torchvision", "triton"


class Lookup:
    """Looks moving values up, each page once."""

    def __init__(
        self,
        places: Places,
        *,
        cert: str = "",
        commit: Callable[[Value], str] = gitref.commit,
    ) -> None:
        self._places = places
        self._cert = cert
        self._commit = functools.cache(commit)
        self._files = functools.cache(self._fetch)

    def fix(self, value: Value, wanted: Wanted) -> Fixed:
        """Return what `value`, a nightly or a git reference, stands for now.

        Raises ResolveError where an index or a repository has no such thing or cannot be
        reached, ConfigurationError where nothing says where the index is.
        """
        if value.kind is Kind.GIT:
            return self._of_git(value, wanted)
        if value.axis == "vllm":
            return self._of_vllm(value, wanted)
        index = f"nightly/{wanted.build}"
        files = self._files(index, value.axis)
        if files is None:
            raise ResolveError(
                f"the nightly index has no {value.axis} of the build {wanted.build}",
                conflict=False,
                cause="it has no such page",
                remedy="look at its address, and at the cuda axis",
            )
        of_torch = value.axis == "torch"
        problem = functools.partial(self._companion, index, wanted)
        chosen = nightly.choose(value, files, wanted, problem if of_torch else lambda _: "")
        notes = [*chosen.notes, *(self._vision(index, wanted, chosen.version) if of_torch else ())]
        return self._fixed(value, wanted, index, chosen.file, chosen.version, tuple(notes))

    def _fixed(
        self,
        value: Value,
        wanted: Wanted,
        index: str,
        file: File,
        version: str,
        notes: tuple[str, ...] = (),
        commit: str = "",
    ) -> Fixed:
        return Fixed(
            axis=value.axis,
            asked=value.text,
            build=wanted.build,
            python=wanted.python,
            platform=wanted.platform or "",
            version=version,
            commit=commit,
            index=index,
            url=self._places.relative(index, file.url),
            sha256=file.sha256,
            when=now("seconds"),
            notes=notes,
        )

    def _fetch(self, index: str, project: str) -> tuple[File, ...] | None:
        return listing.fetch(f"{self._places.url(index)}/{project}/", cert=self._cert)

    def _companion(self, index: str, wanted: Wanted, torch: File) -> str:
        """Say which triton a wheel of torch wants that its index has not, or "".

        A nightly of torch names one commit of triton. Where the index does not serve the
        wheel's metadata, the solver will say it.
        """
        if not torch.metadata:
            return ""
        place = self._places.with_user(index, f"{torch.url}.metadata")
        found = listing.read(place, cert=self._cert)
        needs = _needs(found[0], TRITON, wanted.python) if found else None
        if needs is None:
            return ""
        listed = self._files(index, canonicalize_name(needs.name)) or ()
        for version, files in fitting(listed, needs.name, wanted, any_build=True).items():
            fits = needs.specifier.contains(version, prereleases=True)
            if fits and isinstance(usable(files, wanted), File):
                return ""
        return f"it wants {needs.name}{needs.specifier}, which the index has not"

    def _vision(self, index: str, wanted: Wanted, torch: str) -> list[str]:
        """Return a note where no torchvision of the same day is there."""
        day = str(Version(torch).dev or "")
        listed = fitting(self._files(index, VISION) or (), VISION, wanted)
        same = [
            files
            for version, files in listed.items()
            if str(version.dev) == day and isinstance(usable(files, wanted), File)
        ]
        return [] if same else [f"torch {torch}: no torchvision of that day for {wanted}"]

    def _of_git(self, value: Value, wanted: Wanted) -> Fixed:
        """Return the commit, and for vLLM the wheel of it where its index has one."""
        commit = self._commit(value)
        if value.axis == "vllm" and "vllm" in self._places.places:
            for index in (f"vllm/{commit}/{wanted.build}", f"vllm/{commit}"):
                if found := self._wheel(value, wanted, index, commit):
                    return found
        return Fixed(axis=value.axis, asked=value.text, commit=commit, when=now("seconds"))

    def _of_vllm(self, value: Value, wanted: Wanted) -> Fixed:
        if value.back or value.day:
            raise ConfigurationError(
                f"vllm {value.text}: vLLM's index keeps commits and no days",
                remedy="write nightly, or git:COMMIT",
            )
        for index in (f"vllm/nightly/{wanted.build}", "vllm/nightly"):
            if found := self._wheel(value, wanted, index, ""):
                return found
        raise ResolveError(
            f"vllm nightly: the index has no wheel for {wanted}",
            conflict=False,
            remedy="look at its address, and at the cuda axis",
        )

    def _wheel(self, value: Value, wanted: Wanted, index: str, commit: str) -> Fixed | None:
        """Return the newest wheel of vLLM on `index`; None where none fits."""
        listed = fitting(self._files(index, "vllm") or (), "vllm", wanted, any_build=True)
        for version in sorted(listed, reverse=True):
            file = usable(listed[version], wanted)
            if isinstance(file, str):
                continue
            if match := _COMMIT.search(file.url):
                # The nightly index moves: what it named is kept under its commit.
                index = index.replace("vllm/nightly", f"vllm/{match[1]}")
                commit = commit or match[1]
            return self._fixed(value, wanted, index, file, str(version), commit=commit)
        return None


def _needs(metadata: str, project: str, python: str) -> Requirement | None:
    """Return what a METADATA file requires of `project` on Linux, None where nothing."""
    environment: Mapping[str, str] = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }
    for line in metadata.partition("\n\n")[0].splitlines():
        if not line.startswith("Requires-Dist:"):
            continue
        try:
            needs = Requirement(line.partition(":")[2].strip())
        except InvalidRequirement:
            continue
        own = canonicalize_name(needs.name) in (project, f"pytorch-{project}")
        if own and (needs.marker is None or needs.marker.evaluate(dict(environment))):
            return needs
    return None
