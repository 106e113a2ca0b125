"""Carries an import plan out: a new package with all its versions appears at once, more versions of it one by one.

The source folder is read and left as it is. Versions are staged, signed and renamed by `publish`, like built ones.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from builders.digests import data_digest, file_digest, tree_digests
from builders.errors import PublishError, SourceError, SpecError
from builders.manifest import FileEntry, Manifest, altered_files, read_manifest, version_numbers
from builders.publish import publish, restore_config, staging
from builders.sources.triton_model import BYTECODE_FOLDER, ImportPlan
from builders.spec import CONFIG_FILENAME, SPEC_FILENAME, TritonModelSource, read_spec
from builders.supply_chain.sbom import SBOM_FILENAME, BillOfMaterials, sbom_text

Report = Callable[[int, int], None]
"""Called with how many bytes of how many are taken."""


@dataclass(frozen=True, slots=True)
class ImportSettings:
    """What the source folder does not say. `sign` signs a version's folder before it is published."""

    licence: str = "NOASSERTION"
    summary: str = ""
    sign: Callable[[Path], None] | None = None
    report: Report = field(default=lambda _done, _total: None)


@dataclass(frozen=True, slots=True)
class ImportResult:
    """Where the package is, and which of its versions are new; `kept` were there already, from the same files."""

    path: Path
    imported: tuple[int, ...]
    kept: tuple[int, ...] = ()


def import_model(plan: ImportPlan, repository: Path, settings: ImportSettings | None = None) -> ImportResult:
    """Take what `plan` says into `repository`, every version under its own number; return what was new.

    A new package is there whole or not at all. To one that was imported before, versions are added in ascending order;
    what is there stays, and another one under the same number is refused. Raises SourceError, SpecError, PublishError.
    """
    if plan.problems:
        raise SourceError(f"{plan.source} cannot be imported: {'; '.join(plan.problems)}")
    if not repository.is_dir():
        raise SpecError(f"{repository}: no such folder; --model-repository names the folder that holds the packages")
    target = repository / plan.name
    with staging(repository) as staged:
        work = _Work(plan, settings or ImportSettings(), staged)
        try:
            return work.extend(repository) if os.path.lexists(target) else work.create(repository)
        except OSError as exc:
            raise PublishError(
                f"{plan.source} cannot be imported into {repository}: {exc.strerror or exc}; no version is half there"
            ) from exc


@dataclass(slots=True)
class _Work:
    """One import, in its staging folder."""

    plan: ImportPlan
    settings: ImportSettings
    staged: Path
    done: int = 0

    def create(self, repository: Path) -> ImportResult:
        """Make the whole package in the staging folder, versions included, and rename it into the repository."""
        package = self.staged / "repository" / self.plan.name
        package.mkdir(parents=True)
        (package / SPEC_FILENAME).write_text(self._spec(), encoding="utf-8")
        (package / CONFIG_FILENAME).write_text(self.plan.config, encoding="utf-8")
        for name in self.plan.shared:
            self._copy(name, package / name)
        beside = tree_digests(package)
        for version in self.plan.versions:
            self._publish(version, package.parent, beside)
        _flush(package)
        target = package.rename(repository / self.plan.name)
        _flush_one(repository)
        return ImportResult(target, tuple(self.plan.versions))

    def extend(self, repository: Path) -> ImportResult:
        """Add versions to a package that was imported before."""
        package = repository / self.plan.name
        self._check_same_kind(package)
        beside = tree_digests(self._beside())
        differs = sorted(name for name in self.plan.shared if not _is_same(package / name, beside[name]))
        if differs:
            raise PublishError(
                f"{package} was imported with another {', '.join(differs)}, which its versions share; import it under "
                "another name (--name)"
            )
        kept = tuple(version for version in self.plan.versions if self._is_there(package / str(version)))
        imported = tuple(version for version in self.plan.versions if version not in kept)
        for version in imported:
            self._publish(version, repository, beside)
        newest = version_numbers(package)[-1]
        if newest in self.plan.versions:
            restore_config(package, newest, self.staged)
        return ImportResult(package, imported, kept)

    def _beside(self) -> Path:
        folder = self.staged / "beside"
        folder.mkdir()
        (folder / CONFIG_FILENAME).write_text(self.plan.config, encoding="utf-8")
        for name in self.plan.shared:
            self._copy(name, folder / name)
        return folder

    def _check_same_kind(self, package: Path) -> None:
        kind = read_spec(package).source if (package / SPEC_FILENAME).is_file() else None
        if not isinstance(kind, TritonModelSource):
            raise PublishError(f"{package} is there and was not imported; import under another name (--name)")

    def _is_there(self, version: Path) -> bool:
        """Whether the version is there, made of the same files. Raises PublishError where it is made of others."""
        if not version.exists():
            return False
        manifest = read_manifest(version)
        sources = {} if manifest is None else manifest.sources
        prefix = f"{version.name}/"
        same = all(
            sources.get(name) == file_digest(self.plan.files[name].path)
            for name in self.plan.versions[int(version.name)]
        )
        taken = {name for name in sources if name.startswith(prefix)} == set(self.plan.versions[int(version.name)])
        if manifest is None or not (same and taken) or altered_files(version, manifest):
            raise PublishError(f"{version} is there, made of other files; a published version is never replaced")
        return True

    def _publish(self, version: int, repository: Path, beside: dict[str, str]) -> None:
        content = self.staged / "content"
        content.mkdir()
        for name in self.plan.versions[version]:
            self._copy(name, content / name.partition("/")[2])
        sources = {f"{version}/{name}": digest for name, digest in tree_digests(content).items()}
        sources |= {name: digest for name, digest in beside.items() if name != SPEC_FILENAME}
        for folder in {path.parent for path in content.rglob("*.py")}:
            (folder / BYTECODE_FOLDER).touch()  # Python keeps bytecode in a folder of that name, and cannot make it now
        (content / CONFIG_FILENAME).write_text(self.plan.config, encoding="utf-8")
        bill = BillOfMaterials(
            package=self.plan.name,
            version=version,
            build_key=data_digest({"sources": sources}),
            licence=self.settings.licence,
            summary=self._summary(),
            toolchain={},
            sources=sources,
            files=_entries(content),
        )
        (content / SBOM_FILENAME).write_text(sbom_text(bill), encoding="utf-8")
        manifest = Manifest(
            package=bill.package,
            version=version,
            build_key=bill.build_key,
            licence=bill.licence,
            command=f"tritonfleet import {self.plan.source.name} --name {self.plan.name}",
            summary=bill.summary,
            sources=sources,
            files=_entries(content),
        )
        publish(self.staged, repository, manifest, self.settings.sign)

    def _copy(self, name: str, target: Path) -> None:
        """Copy one file of the plan. Raises SourceError where it is no longer what the plan saw."""
        entry = self.plan.files[name]
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(entry.path, target)
            status = entry.path.stat()
            target.chmod(0o644 | (status.st_mode & 0o111))
        except FileNotFoundError as exc:
            raise SourceError(f"{self.plan.source / name} went away while it was taken; import again") from exc
        if (status.st_size, status.st_mtime_ns) != (entry.bytes, entry.mtime_ns):
            raise SourceError(f"{self.plan.source / name} changed while it was taken; import again")
        self.done += entry.bytes
        self.settings.report(self.done, self.plan.total_bytes)

    def _summary(self) -> str:
        return self.settings.summary or f"Imported from the Triton model folder {self.plan.source.absolute().name}"

    def _spec(self) -> str:
        """Return the text of `model.toml`."""
        return (
            f"name = {_toml(self.plan.name)}\nsummary = {_toml(self._summary())}\n"
            f"licence = {_toml(self.settings.licence)}\n\n"
            '[source]\nkind = "triton_model"\n'
        )


def _entries(content: Path) -> dict[str, FileEntry]:
    return {name: FileEntry(digest, (content / name).stat().st_size) for name, digest in tree_digests(content).items()}


def _toml(text: str) -> str:
    """Return a TOML string: one of JSON, but for the one control character that JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_same(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest


def _flush(root: Path) -> None:
    """Put what lies beside the versions on disk; `publish` has done so with the versions."""
    for path in sorted(root.rglob("*")):
        if not path.relative_to(root).parts[0].isdigit():
            _flush_one(path)
    _flush_one(root)


def _flush_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
