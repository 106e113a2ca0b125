"""`tritonfleet import`: takes a Triton model folder of any backend into the model repository, as it is."""

from pathlib import Path
from typing import Annotated

import typer

from builders.errors import SourceError
from builders.sources.triton_import import ImportResult, ImportSettings, import_model
from builders.sources.triton_model import ImportPlan, import_plan
from control_plane.cli import output
from control_plane.cli.build import Repository
from control_plane.cli.completion import DEFAULT_REPOSITORY
from control_plane.cli.signature import sign_from_environment


def command(
    folder: Annotated[Path, typer.Argument(help="Folder of one model: its config.pbtxt and version folders.")],
    repository: Repository = DEFAULT_REPOSITORY,
    name: Annotated[
        str | None, typer.Option("--name", help="The package's name (default: the folder's).", show_default=False)
    ] = None,
    allow_pickle: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-pickle",
            metavar="FILE",
            help="Take this file though it holds a pickle, which runs code where it is loaded. Repeatable.",
            show_default=False,
        ),
    ] = None,
    licence: Annotated[str, typer.Option("--licence", help="SPDX expression of the model's licence.")] = "NOASSERTION",
    summary: Annotated[str, typer.Option("--summary", help="One line on the model.", show_default=False)] = "",
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be taken; take nothing.")] = False,
    as_json: output.AsJson = False,
) -> None:
    """Take an existing Triton model folder into the model repository, as it is.

    Every version keeps its number and gets a manifest, a bill of materials and, where TRITONFLEET_SIGNING_KEY is set,
    a signature. The folder is left as it is. A new package is there whole or not at all; importing again adds versions.

    Example: tritonfleet import /srv/models/resnet50
    """
    planned = import_plan(folder, name, allow_pickle or ())
    if plan:
        _show_plan(planned, as_json=as_json)
        if planned.problems:
            raise typer.Exit(1)
        return
    for problem in planned.problems[1:]:
        output.print_error(problem)
    if planned.problems:
        raise SourceError(planned.problems[0])
    with output.Spinner(f"importing {planned.name}") as spinner:

        def report(done: int, total: int) -> None:
            spinner.update(f"importing {planned.name}: {output.size(done)} of {output.size(total)}")

        settings = ImportSettings(licence, summary, sign_from_environment(), report)
        result = import_model(planned, repository, settings)
    if as_json:
        output.print_json(_as_data(planned) | _result_data(result))
        return
    rows = [(planned.name, str(version), _state(result, version)) for version in planned.versions]
    output.show(output.table(["package", ">version", ""], rows))
    _show_notes(planned)


def _state(result: ImportResult, version: int) -> str:
    return "imported" if version in result.imported else "was there already"


def _show_plan(planned: ImportPlan, *, as_json: bool) -> None:
    if as_json:
        output.print_json(_as_data(planned))
    else:
        rows = [
            (planned.name, str(version), str(len(files)), output.size(sum(planned.files[name].bytes for name in files)))
            for version, files in planned.versions.items()
        ]
        if planned.shared:
            size = output.size(sum(planned.files[name].bytes for name in planned.shared))
            rows.append((planned.name, "shared", str(len(planned.shared)), size))
        output.show(output.table(["package", ">version", ">files", ">size"], rows))
        _show_notes(planned)
    for problem in planned.problems:
        output.print_error(problem)


def _show_notes(planned: ImportPlan) -> None:
    for note in planned.notes:
        output.err.print(output.labelled("note:", note), soft_wrap=True)


def _as_data(planned: ImportPlan) -> dict[str, object]:
    return {
        "package": planned.name,
        "versions": {str(version): list(files) for version, files in planned.versions.items()},
        "shared": list(planned.shared),
        "bytes": planned.total_bytes,
        "problems": list(planned.problems),
        "notes": list(planned.notes),
    }


def _result_data(result: ImportResult) -> dict[str, object]:
    return {"path": str(result.path), "imported": list(result.imported), "kept": list(result.kept)}
