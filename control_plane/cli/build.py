"""`tritonfleet build` and `tritonfleet publish`: artifacts and versions of model packages, with progress and tables.

`build_tables` says what was made. Exit codes beside the usual ones: 4 where all that this machine can do is done, and a
required target waits for another machine.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from builders.errors import BuildError, MissingTargetError, SpecError
from builders.host import observe_host
from builders.pbtxt import parse_config
from builders.pipeline import Builder, BuildResult, build, builder_of, publish_package
from builders.pipeline import Progress as BuildProgress
from builders.plan import Failed, Pending, plan_build
from builders.spec import CONFIG_FILENAME, find_packages, read_spec
from builders.targets import Target, why_not_built_here
from control_plane.adapters.engine_runner import engine_runner_of
from control_plane.cli import completion, output
from control_plane.cli.build_tables import build_data, build_table, candidates_table, plan_data, plan_table
from control_plane.cli.completion import DEFAULT_REPOSITORY

PENDING = 4
"""Exit code: this machine's part is done; something required needs another machine."""

Repository = Annotated[
    Path,
    typer.Option(
        "--model-repository", "-r", envvar="TRITONFLEET_MODEL_REPOSITORY", help="Folder that holds the packages."
    ),
]
Versioned = Annotated[
    str, typer.Argument(help="MODEL or MODEL:VERSION (default: its newest).", autocompletion=completion.packages)
]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="TRITONFLEET_ARTIFACT_STORE",
        help="Artifact store that builders share: a folder or s3://bucket/prefix. Default: beside the repository.",
        show_default=False,
    ),
]
Packages = Annotated[
    list[str] | None,
    typer.Argument(
        help="Packages to build, an ensemble's members with it; all where left out.",
        show_default=False,
        autocompletion=completion.packages,
    ),
]


def command(
    packages: Packages = None,
    every: Annotated[bool, typer.Option("--all", help="Build every package (as without names).")] = False,
    repository: Repository = DEFAULT_REPOSITORY,
    store: Store = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "-t", help="Make only this target, e.g. tensorrt-sm_90-fp16; publish nothing. Repeatable."
        ),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="Make only the i-th of n parts of the targets, as i/n; publish nothing.")
    ] = None,
    required: Annotated[
        bool, typer.Option("--required", help="Make only the targets that packages require, and publish.")
    ] = False,
    no_publish: Annotated[
        bool, typer.Option("--no-publish", help="Put artifacts into the store; publish nothing.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show the steps, what is cached, and why not; build nothing.")
    ] = False,
    candidates: Annotated[bool, typer.Option("--candidates", help="Show every candidate that was measured.")] = False,
    as_json: output.AsJson = False,
) -> None:
    """Build model packages into versions that Triton can load.

    A package is a folder with a model.toml. What this machine can make is made, proven against the source, measured,
    and kept in the artifact store; the rest is listed with what it needs. Where nothing required is missing, a version
    is assembled and renamed into place. What is unchanged is left alone.

    Example: tritonfleet build sentence_encoder
    """
    if every and packages:
        raise typer.BadParameter("name packages, or give --all; not both")
    if required and (targets or shard):
        raise typer.BadParameter("--required publishes; it does not go with --target and --shard")
    builder = _builder(repository, store)
    names = _chosen(repository, packages or [])
    work = _required(builder, names) if required else _work(builder, names, targets or [], shard)
    if plan:
        plans = [plan_build(builder.observe(name), work.get(name)) for name in names]
        if as_json:
            output.print_json([plan_data(each) for each in plans])
        else:
            output.show(plan_table(plans))
        return
    release = not (no_publish or targets or shard)
    asked = work if targets or shard else {}
    done = _build_each(builder, names, work, asked, release=release)
    _report(done, candidates=candidates, as_json=as_json)
    if any(result.plan.blocked for result in done.results) if release else _waits(done.results, asked):
        raise typer.Exit(PENDING)


def publish(
    packages: Packages = None,
    repository: Repository = DEFAULT_REPOSITORY,
    store: Store = None,
    as_json: output.AsJson = False,
) -> None:
    """Assemble versions from what is in the artifact store, and publish them; build nothing.

    Refused while a target that the package requires is missing. A published version is never changed.

    Example: tritonfleet publish sentence_encoder --store s3://artifacts/models
    """
    builder = _builder(repository, store)
    done = _Done([], [])
    for name in _chosen(repository, packages or []):
        try:
            done.results.append(publish_package(builder, name))
        except BuildError as exc:
            done.errors.append(exc)
    _report(done, candidates=False, as_json=as_json)


def build_model(repository: Path, model: str) -> list[BuildResult]:
    """Build what a package and, where it is an ensemble, its members require, drawing progress on standard error.

    The first error is raised at the end.
    """
    builder, names = _builder(repository, None), _chosen(repository, [model])
    done = _build_each(builder, names, _required(builder, names), {}, release=True)
    _raise_first(done.errors)
    return done.results


def _builder(repository: Path, store: str | None) -> Builder:
    """Return a Builder with what the environment gives it: a key to sign with, a key to trust, a GPU to prove on."""
    from control_plane.cli.signature import PUBLIC_KEY_VARIABLE, sign_from_environment  # noqa: PLC0415 - imports us

    trusted = None
    if os.environ.get(PUBLIC_KEY_VARIABLE):
        from builders.supply_chain.keys import read_public_key  # noqa: PLC0415 - of the extra `signing`

        trusted = read_public_key(Path(os.environ[PUBLIC_KEY_VARIABLE]))
    runner = engine_runner_of(observe_host())
    return replace(builder_of(repository, store), sign=sign_from_environment(), engine_runner=runner, trusted=trusted)


@dataclass(frozen=True, slots=True)
class _Done:
    results: list[BuildResult]
    errors: list[BuildError]


def _report(done: _Done, *, candidates: bool, as_json: bool) -> None:
    if as_json:
        output.print_json([build_data(result) for result in done.results])
    elif done.results:
        output.show(build_table(done.results))
        if candidates:
            output.show(candidates_table(done.results))
    _raise_first(done.errors)


Work = dict[str, frozenset[Target]]
"""Targets to make, by package; a package that is not in it makes all."""


def _build_each(builder: Builder, names: tuple[str, ...], work: Work, asked: Work, *, release: bool) -> _Done:
    """Build `names` one after another; one that cannot be built does not keep the others from it.

    The targets in `asked` were asked for by name or by shard: one of them that fails is an error, required or not.
    """
    done = _Done([], [])
    with _progress() as progress:
        for name in names:
            task = progress.add_task(escape(name), total=None, doing="")

            def report(step: BuildProgress, task: Any = task) -> None:  # noqa: ANN401 - rich's own id type
                progress.update(task, total=step.total or None, completed=step.done, doing=escape(step.step))

            reporting = replace(builder, report=report)
            try:
                result = build(reporting, name, work.get(name), release=release)
            except BuildError as exc:
                progress.update(task, total=1, completed=0, doing="[red]failed")
                done.errors.append(exc)
                continue
            done.results.append(result)
            done.errors.extend(_failures(result, asked.get(name, frozenset())))
            progress.update(task, total=1, completed=1, doing="built" if result.made else "up to date")
    return done


def _waits(results: list[BuildResult], asked: Work) -> bool:
    """Tell whether something that was asked for needs another machine."""
    return any(
        isinstance(step.state, Pending) and step.spec.target in asked.get(result.plan.package, ())
        for result in results
        for step in result.plan.targets
    )


def _failures(result: BuildResult, asked: frozenset[Target]) -> Iterator[BuildError]:
    """Yield why targets that the package requires, or that were asked for, could not be made, now or earlier."""
    now = dict(result.errors)
    for step in result.plan.targets:
        target = str(step.spec.target)
        required = step.spec.required or target in result.plan.blocked
        if not (step.spec.target in asked if asked else required):
            continue
        if target in now:
            yield now[target]
        elif isinstance(step.state, Failed):
            yield MissingTargetError(
                f"{result.plan.package} has no {target}: {step.state.reason}; it is tried again when the package or a "
                "tool has changed"
            )


def _raise_first(errors: list[BuildError]) -> None:
    for error in errors[1:]:
        output.print_error(str(error))
    if errors:
        raise errors[0]


def _work(builder: Builder, names: tuple[str, ...], targets: list[str], shard: str | None) -> Work:
    """Return what is to be made."""
    if not targets and shard is None:
        return {}
    observed = [builder.observe(name) for name in names]
    steps = [(each.spec.name, spec.target) for each in observed for spec in each.spec.graph_targets]
    if targets:
        known = sorted({str(target) for _, target in steps})
        unknown = sorted(set(targets) - set(known))
        if unknown:
            raise SpecError(f"no package has the target {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
        steps = [step for step in steps if str(step[1]) in targets]
    whole: set[str] = set()  # packages without targets, whose export is work by itself
    if shard is not None:
        host = observed[0].host
        able: list[tuple[str, Target | None]] = [
            (package, target) for package, target in steps if why_not_built_here(target, host) is None
        ]
        if not targets:
            able += [(it.spec.name, None) for it in observed if not it.spec.graph_targets and it.toolchains.get("")]
        part = _part(able, shard)
        steps = [(package, target) for package, target in part if target is not None]
        whole = {package for package, target in part if target is None}
    return {
        name: frozenset(target for package, target in steps if package == name) for name in names if name not in whole
    }


def _required(builder: Builder, names: tuple[str, ...]) -> Work:
    """Return the targets that each package cannot be published without; one that requires none makes all."""
    specs = ((name, read_spec(builder.repository / name)) for name in names)
    required = {name: frozenset(it.target for it in spec.graph_targets if it.required) for name, spec in specs}
    return {name: targets for name, targets in required.items() if targets}


def _part(steps: list[tuple[str, Target | None]], shard: str) -> list[tuple[str, Target | None]]:
    """Deal out what machines like this one can make, in a fixed order, whether or not it is made already.

    So the parts are the same for equal machines whenever each begins, and for one that begins again.
    """
    match = re.fullmatch(r"([1-9]\d{0,3})/([1-9]\d{0,3})", shard)
    if match is None or int(match[1]) > int(match[2]):
        raise typer.BadParameter("--shard is i/n with 1 <= i <= n, such as 2/4")
    number, count = int(match[1]), int(match[2])
    return sorted(steps, key=lambda step: (step[0], str(step[1])))[number - 1 :: count]


def _chosen(repository: Path, packages: list[str]) -> tuple[str, ...]:
    there = find_packages(repository)
    unknown = sorted(set(packages) - set(there))
    if unknown:
        raise SpecError(f"{repository} has no package {', '.join(unknown)}; it has: {', '.join(there) or 'none'}")
    if not there:
        raise SpecError(f"{repository} holds no package; a package is a folder with a model.toml")
    members = {name: _members(repository / name) for name in there}
    wanted = set(packages) or set(there)
    while more := {member for name in wanted for member in members[name] if member in there} - wanted:
        wanted |= more
    return tuple(sorted(wanted, key=lambda name: (bool(members[name]), name)))


def _members(package: Path) -> tuple[str, ...]:
    """Return the models that an ensemble calls; none where the package is none or its config cannot be read yet."""
    try:
        text = (package / CONFIG_FILENAME).read_text(encoding="utf-8")
        return parse_config(text, path=str(package / CONFIG_FILENAME)).members
    except (OSError, UnicodeDecodeError, BuildError):  # the build itself says what is wrong with it
        return ()


def _progress() -> Progress:
    columns = (
        SpinnerColumn(finished_text="[green]•"),
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}"),
    )
    return Progress(*columns, console=output.err, transient=output.err.is_terminal)
