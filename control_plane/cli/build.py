"""`tritonfleet build`: makes the versions of model packages, with progress, and shows what was made and proven."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from builders.errors import BuildError, SpecError
from builders.pipeline import BuildResult, build, observe_package
from builders.pipeline import Progress as BuildProgress
from builders.plan import BuildPlan, plan_build
from builders.spec import find_packages
from control_plane.cli import output

Repository = Annotated[
    Path,
    typer.Option(
        "--model-repository", "-r", envvar="TRITONFLEET_MODEL_REPOSITORY", help="Folder that holds the packages."
    ),
]
DEFAULT_REPOSITORY = Path("model_repository")


def command(
    packages: Annotated[
        list[str] | None,
        typer.Argument(help="Packages to build; all of the repository when left out.", show_default=False),
    ] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be built and why; build nothing.")] = False,
    as_json: output.AsJson = False,
) -> None:
    """Build model packages into versions that Triton can load.

    A package is a folder with a model.toml. Its version is exported, proven against the source on the golden set,
    and renamed into place with a manifest of digests. Unchanged packages are left alone.

    Example: tritonfleet build sentence_encoder
    """
    names = _chosen(repository, packages or [])
    if plan:
        _show_plans([plan_build(observe_package(repository, name)) for name in names], as_json=as_json)
        return
    results, errors = _build_each(repository, names)
    if as_json:
        output.print_json([_as_data(result) for result in results])
    elif results:
        output.show(built_table(results))
    _raise_first(errors)


def build_all(repository: Path) -> list[BuildResult]:
    """Build every package of `repository`, drawing progress on standard error. The first error is raised at the end."""
    results, errors = _build_each(repository, _chosen(repository, []))
    _raise_first(errors)
    return results


def _build_each(repository: Path, names: tuple[str, ...]) -> tuple[list[BuildResult], list[BuildError]]:
    """Build `names` one after another; one that cannot be built does not keep the others from it."""
    results: list[BuildResult] = []
    errors: list[BuildError] = []
    with _progress() as progress:
        for name in names:
            task = progress.add_task(escape(name), total=None, doing="")

            def report(step: BuildProgress, task: Any = task) -> None:  # noqa: ANN401 - rich's own id type
                progress.update(task, total=step.total or None, completed=step.done, doing=step.step)

            try:
                results.append(build(repository, name, report))
            except BuildError as exc:
                progress.update(task, total=1, completed=0, doing="[red]failed")
                errors.append(exc)
            else:
                progress.update(task, total=1, completed=1, doing="built" if results[-1].built else "up to date")
    return results, errors


def _raise_first(errors: list[BuildError]) -> None:
    for error in errors[1:]:
        output.print_error(str(error))
    if errors:
        raise errors[0]


def built_table(results: list[BuildResult]) -> Any:  # noqa: ANN401 - a rich table
    """Return a table of what was built: size, parity, and why."""
    return output.table(
        ["package", ">version", "", ">size", ">lowest cosine", ">largest error", ">seconds"],
        [
            (
                result.plan.package,
                str(result.plan.version),
                f"built: {result.plan.reason}" if result.built else "up to date",
                output.size(result.manifest.total_bytes),
                f"{result.manifest.parity.min_cosine:.6f}" if result.manifest.parity else "",
                f"{result.manifest.parity.max_abs_error:.1e}" if result.manifest.parity else "",
                f"{result.seconds:.1f}",
            )
            for result in results
        ],
    )


def _chosen(repository: Path, packages: list[str]) -> tuple[str, ...]:
    there = find_packages(repository)
    unknown = sorted(set(packages) - set(there))
    if unknown:
        raise SpecError(f"{repository} has no package {', '.join(unknown)}; it has: {', '.join(there) or 'none'}")
    if not there:
        raise SpecError(f"{repository} holds no package; a package is a folder with a model.toml")
    return tuple(name for name in there if name in packages) if packages else there


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


def _show_plans(plans: list[BuildPlan], *, as_json: bool) -> None:
    if as_json:
        output.print_json(
            [
                {
                    "package": plan.package,
                    "version": plan.version,
                    "steps": [type(step).__name__ for step in plan.steps],
                    "reason": plan.reason,
                    "build_key": plan.build_key,
                }
                for plan in plans
            ]
        )
        return
    rows = [
        (plan.package, str(plan.version), plan.reason, ", ".join(type(step).__name__ for step in plan.steps) or "none")
        for plan in plans
    ]
    output.show(output.table(["package", ">version", "reason", "steps"], rows))


def _as_data(result: BuildResult) -> dict[str, object]:
    parity = result.manifest.parity
    return {
        "package": result.plan.package,
        "version": result.plan.version,
        "built": result.built,
        "reason": result.plan.reason,
        "path": str(result.path),
        "bytes": result.manifest.total_bytes,
        "build_key": result.plan.build_key,
        "seconds": round(result.seconds, 3),
        "parity": None
        if parity is None
        else {
            "sentences": parity.sentences,
            "min_cosine": parity.min_cosine,
            "max_abs_error": parity.max_abs_error,
        },
    }
