"""Builds in processes of their own, for tests that kill them, starve them and let them meet."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builders.manifest import Manifest, altered_files, read_manifest
from builders.publish import staging_folder
from tests.command_line import DEADLINE_S, Ended, command_line, environment
from tests.tiny_packages import (
    FP32,
    GRAPH,
)


@dataclass(frozen=True, slots=True)
class Workshop:
    """A repository, the distributions that its packages are built from, and builds in processes of their own."""

    repository: Path
    site: Path

    @property
    def staging(self) -> Path:
        return staging_folder(self.repository)

    @property
    def store(self) -> Path:
        return self.repository.parent / f".{self.repository.name}.artifacts"

    def arguments(self, *more: str) -> list[str]:
        return command_line("build", "-r", str(self.repository), "--json", *more)

    def environment(self) -> dict[str, str]:
        apart = environment()
        return {**apart, "PYTHONPATH": f"{self.site}{os.pathsep}{apart['PYTHONPATH']}"}

    @contextmanager
    def build_begun(self, *more: str) -> Iterator[subprocess.Popen[str]]:
        """Begin a build; killed afterwards if it still runs."""
        with subprocess.Popen(
            self.arguments(*more),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def build(self, *more: str) -> Ended:
        with self.build_begun(*more) as process:
            out, err = process.communicate(timeout=DEADLINE_S)
        return Ended(process.returncode, out, err)

    def versions(self, package: str = GRAPH) -> list[str]:
        """Return what folders the package has; each must be a whole version, with nothing else beside the sources."""
        folders = sorted(path for path in (self.repository / package).iterdir() if path.is_dir())
        for folder in folders:
            assert altered_files(folder, manifest_of(folder)) == ()
        return [folder.name for folder in folders]


def manifest_of(version: Path) -> Manifest:
    manifest = read_manifest(version)
    assert manifest is not None, f"{version} is half a version: {list(version.iterdir())}"
    return manifest


def built(ended: Ended) -> list[tuple[int | None, bool, list[str]]]:
    """Return (version, whether it is new, steps carried out) of each package of a build that went well."""
    assert ended.code == 0, ended
    return [(it["version"], it["built"], it["made"]) for it in ended.data]


def tried(ended: Ended) -> list[str]:
    """Return the targets that a build tried in vain, not those that it knew of."""
    return [target["target"] for it in ended.data for target in it["targets"] if target["error"]]


def left_in_staging(workshop: Workshop) -> list[str]:
    return [path.name for path in workshop.staging.iterdir()]


EXPORT, BUILD, PUBLISH = "export", f"build {FP32}", "publish 1"
ALL = (EXPORT, BUILD, PUBLISH)
