"""A Triton model folder of any backend, as `tritonfleet import` takes it: what would be taken, what stands against it.

Reads only. `triton_import` carries a plan without problems out; afterwards the package is one of kind `triton_model`,
for which `plan` has nothing to build.
"""

import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from builders.errors import ConfigError, SourceError
from builders.manifest import MANIFEST_FILENAME, SIGNATURE_FILENAME
from builders.pbtxt import parse_config
from builders.sources.pickles import is_pickled
from builders.spec import CONFIG_FILENAME, SPEC_FILENAME
from builders.supply_chain.sbom import SBOM_FILENAME
from builders.validate import config_problems

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_LARGEST_VERSION = 2**63 - 1
# What Triton reads beside the versions (docs/user_guide/model_configuration.md: model_warmup, initial_state, and
# --model-config-name). Any other folder beside them is nothing to it, but may be to the model: a Python model finds its
# weights or its environment there (`args["model_repository"]`, $$TRITON_MODEL_DIRECTORY).
_SHARED_FOLDERS = frozenset({"configs", "initial_state", "warmup"})
BYTECODE_FOLDER = "__pycache__"
_OF_A_VERSION = frozenset({CONFIG_FILENAME, MANIFEST_FILENAME, SBOM_FILENAME, SIGNATURE_FILENAME})
# Triton's own defaults (docs/user_guide/model_configuration.md, "Auto-Generated Model Configuration"): the file that a
# version of the backend holds, for backends that complete a config that says no more than which backend it is.
_COMPLETED: Mapping[str, str] = {
    "model.onnx": "onnxruntime",
    "model.plan": "tensorrt",
    "model.py": "python",
    "model.savedmodel": "tensorflow",
    "model.xml": "openvino",
}


@dataclass(frozen=True, slots=True)
class SourceFileState:
    """One file that would be taken: where it really lies, its size in bytes, and when it was last changed."""

    path: Path
    bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What would be taken from `source` as the package `name`. With a problem nothing can be; each is one sentence.

    `files` are by path in `source`. `versions` maps each number to its files, `shared` are those beside the versions.
    `config` is the text that every version gets. `notes` say what is taken otherwise than it lies there.
    """

    source: Path
    name: str
    config: str = ""
    versions: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    files: Mapping[str, SourceFileState] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        """Size of all files that would be taken."""
        return sum(entry.bytes for entry in self.files.values())


def import_plan(folder: Path, name: str | None = None, allow_pickle: Collection[str] = ()) -> ImportPlan:
    """Return what importing `folder` would take, as the package `name` (default: the folder's own name).

    `allow_pickle` are paths in the folder, or file names, of pickles to take all the same. Raises SourceError where
    there is no folder; all else that stands against it is among the plan's problems.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; name the folder of one model, with its config.pbtxt and versions")
    found = _Survey(folder.resolve())
    found.walk()
    found.look_for_pickles(allow_pickle)
    if any(entry.endswith(".py") for files in found.versions().values() for entry in files):
        found.notes.append(
            f"a file {BYTECODE_FOLDER} is put beside Python code, so that serving a version alters nothing"
        )
    chosen = name or folder.absolute().name
    if not _NAME.fullmatch(chosen):
        found.problems.append(f"'{chosen}' is no name for a package: letters, digits, '.', '_', '-'; --name gives one")
    plan = ImportPlan(folder, chosen, _config(found, chosen), found.versions(), found.shared(), found.files)
    if not plan.versions:
        found.problems.append(f"{folder} holds no version; Triton reads folders named 1, 2, 3 and so on")
    return replace(plan, problems=tuple(sorted(found.problems)), notes=tuple(sorted(found.notes)))


class _Survey:
    """Walks a model's folder once, and remembers what is there and what is wrong with it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, SourceFileState] = {}
        self.numbers: set[int] = set()
        self.problems: list[str] = []
        self.notes: list[str] = []

    def walk(self) -> None:
        for parent, folders, names in os.walk(self.root, onerror=self._unreadable):
            here = Path(parent)
            folders[:] = [name for name in sorted(folders) if self._enters(here, name)]
            for name in sorted(names):
                self._add(here / name)
            if here not in (self.root, *self._version_folders()) and not (folders or names):
                self.notes.append(f"{self._relative(here)}: an empty folder is left behind")

    def look_for_pickles(self, allowed: Collection[str]) -> None:
        for name, entry in self.files.items():
            try:
                pickled = is_pickled(entry.path)
            except OSError as exc:
                self.problems.append(f"{name} cannot be read: {exc.strerror or exc}")
                continue
            if pickled and not {name, Path(name).name} & set(allowed):
                self.problems.append(
                    f"{name} is or holds a pickle, which runs code where it is loaded; --allow-pickle {name} takes it"
                )
        known = {*self.files, *(Path(name).name for name in self.files)}
        self.problems += [f"--allow-pickle {name}: there is no such file" for name in sorted(set(allowed) - known)]

    def versions(self) -> dict[int, tuple[str, ...]]:
        return {number: tuple(self._below(f"{number}/")) for number in sorted(self.numbers)}

    def shared(self) -> tuple[str, ...]:
        tops = {str(number) for number in self.numbers}
        return tuple(name for name in sorted(self.files) if name.split("/")[0] not in tops and name != CONFIG_FILENAME)

    def _below(self, prefix: str) -> Iterator[str]:
        return (name for name in sorted(self.files) if name.startswith(prefix))

    def _version_folders(self) -> tuple[Path, ...]:
        return tuple(self.root / str(number) for number in self.numbers)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _unreadable(self, error: OSError) -> None:
        self.problems.append(f"{error.filename} cannot be read: {error.strerror or error}")

    def _enters(self, here: Path, name: str) -> bool:
        where = self._relative(here / name)
        if (here / name).is_symlink():
            self.problems.append(f"{where} is a link to a folder; put the folder itself there")
        elif name == BYTECODE_FOLDER or (here == self.root and name.startswith(".")):
            self.notes.append(f"{where}: left behind")
        elif here != self.root or name in _SHARED_FOLDERS:
            return True
        elif not name.isdigit():
            self.notes.append(f"{where}: no version; it is taken as it is, beside the versions, which share it")
            return True
        elif _is_version(name):
            self.numbers.add(int(name))
            return True
        else:
            self.problems.append(
                f"{where} is no version: Triton reads folders named 1, 2, 3 and so on; rename it, or move it elsewhere"
            )
        return False

    def _add(self, path: Path) -> None:
        name = self._relative(path)
        problem = self._problem(path, name)
        if problem:
            self.problems.append(problem)
            return
        status = path.stat()
        if path.is_symlink():
            self.notes.append(f"{name}: a link; the file it leads to is taken")
        self.files[name] = SourceFileState(path.resolve(), status.st_size, status.st_mtime_ns)

    def _problem(self, path: Path, name: str) -> str:
        shown = ascii(name)
        if not name.isprintable():
            return f"{shown}: a name with control characters or undecodable bytes; rename it"
        top, _, rest = name.partition("/")
        if name == SPEC_FILENAME:
            return f"{name} is there, so this is a package of Tritonfleet already; build it, or copy it as it is"
        if rest in _OF_A_VERSION and _is_version(top):
            return f"{name}: a version gets a {rest} of its own; rename the file, or move it one folder up"
        try:
            target = path.resolve(strict=True)
            mode = target.stat().st_mode
        except (OSError, RuntimeError) as exc:  # RuntimeError: links in a circle, in older versions of Python
            return f"{name} leads nowhere: {exc.strerror if isinstance(exc, OSError) else exc}"
        if not target.is_relative_to(self.root):
            return f"{name} is a link that leaves the folder; put the file itself there"
        return "" if stat.S_ISREG(mode) else f"{name} is neither a file nor a folder"


def _is_version(name: str) -> bool:
    plain = name.isascii() and name.isdigit() and not name.startswith("0")
    return plain and len(name) <= len(str(_LARGEST_VERSION)) and int(name) <= _LARGEST_VERSION


def _config(found: _Survey, package: str) -> str:
    """Return the text of the package's config: the folder's own, or the least that Triton completes by itself."""
    entry = found.files.get(CONFIG_FILENAME)
    if entry is None:  # where one is there, it is among the problems
        return "" if os.path.lexists(found.root / CONFIG_FILENAME) else _least_config(found, package)
    where = str(found.root / CONFIG_FILENAME)
    try:
        text = entry.path.read_text(encoding="utf-8")
        config = parse_config(text, path=where)
        if config.name and config.name != package:
            text = _renamed(text, config.name, package)
            found.notes.append(f"{CONFIG_FILENAME}: name is '{package}' in the package, no longer '{config.name}'")
            config = parse_config(text, path=where)
    except (OSError, UnicodeDecodeError) as exc:
        found.problems.append(f"{CONFIG_FILENAME} cannot be read: {exc}")
        return ""
    except ConfigError as exc:
        found.problems.append(str(exc))
        return ""
    if not config.name:
        found.notes.append(f"{CONFIG_FILENAME} gives no name; Triton takes the folder's, '{package}'")
    found.problems += [f"{where}: {problem}" for problem in config_problems(config, package=package)]
    return text


def _renamed(text: str, old: str, new: str) -> str:
    """Return a config's text with another name, and nothing else changed. Raises ConfigError where that is not sure."""
    before = parse_config(text, path=CONFIG_FILENAME)
    for match in re.finditer(r"\bname\s*:\s*([\"'])" + re.escape(old) + r"\1", text):
        changed = f'{text[: match.start()]}name: "{new}"{text[match.end() :]}'
        if parse_config(changed, path=CONFIG_FILENAME) == replace(before, name=new):
            return changed
    raise ConfigError(CONFIG_FILENAME, f"its name is '{old}'; make it '{new}', or leave it out")


def _least_config(found: _Survey, package: str) -> str:
    """Return a config that names nothing but the backend, where every version holds a file that gives it away."""
    tops = [{name.split("/")[1] for name in files} for files in found.versions().values()]
    backends = {backend for file, backend in _COMPLETED.items() if tops and all(file in top for top in tops)}
    if len(backends) != 1:
        found.problems.append(
            f"there is no {CONFIG_FILENAME}, and no file that tells which backend could do without one "
            f"({', '.join(_COMPLETED)}); write one"
        )
        return ""
    (backend,) = backends
    found.notes.append(
        f"{CONFIG_FILENAME}: there is none; one is written that leaves all but backend {backend} to Triton"
    )
    return f'name: "{package}"\nbackend: "{backend}"\n'
