"""`tritonfleet verify-signature` and `tritonfleet key new`: whether versions are what their builder signed, and keys.

The same verification decides in the control plane, where the policy asks for signatures.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from builders.errors import SourceError
from builders.manifest import version_numbers
from control_plane.cli import completion, output
from control_plane.cli.build import Repository
from control_plane.cli.completion import DEFAULT_REPOSITORY

if TYPE_CHECKING:
    from builders.supply_chain.signing import VerificationResult

PUBLIC_KEY_VARIABLE = "TRITONFLEET_PUBLIC_KEY"
_KEY_VARIABLES = ("TRITONFLEET_SIGNING_KEY", "TRITONFLEET_SIGNING_KEY_PEM")  # of `keys`, which needs the extra
_SHOWN_OF_A_FINGERPRINT = 16

keys = typer.Typer(no_args_is_help=True, help="Keys that versions are signed with.")


@dataclass(frozen=True, slots=True)
class _Verified:
    package: str
    version: int
    path: Path
    result: "VerificationResult"


def verify(
    public_key: Annotated[
        Path,
        typer.Option("--public-key", envvar=PUBLIC_KEY_VARIABLE, help="PEM file of the key that versions must have."),
    ],
    packages: Annotated[
        list[str] | None,
        typer.Argument(
            help="Packages to verify; all of the repository when left out.",
            show_default=False,
            autocompletion=completion.packages,
        ),
    ] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: output.AsJson = False,
) -> None:
    """Verify that versions are exactly what the owner of a key signed.

    Every file of every version is read and held against the version's signature and manifest. Ends with 1 where one
    is unsigned, altered or signed with another key, and says which file.

    Example: tritonfleet verify-signature --public-key keys/tritonfleet.pub
    """
    from builders.supply_chain.keys import read_public_key  # noqa: PLC0415 - no other command pays for its import
    from builders.supply_chain.signing import verify_version  # noqa: PLC0415

    key = read_public_key(public_key)
    found = []
    with output.Spinner("reading the versions") as spinner:
        for package, version in _versions(repository, packages or []):
            spinner.update(f"verifying {package}/{version}")
            path = repository / package / str(version)
            found.append(_Verified(package, version, path, verify_version(path, key)))
    if as_json:
        output.print_json([_as_data(entry) for entry in found])
    else:
        output.show(output.table(["package", ">version", "signed by", "state"], [_row(entry) for entry in found]))
    failed = [entry for entry in found if not entry.result.ok]
    for entry in failed:
        output.print_error(entry.result.problem)
    if failed:
        raise typer.Exit(1)


@keys.command("new")
def new_key(
    folder: Annotated[Path, typer.Argument(help="Folder for the two files; made where it is missing.")],
    as_json: output.AsJson = False,
) -> None:
    """Make a key pair (EC P-256): a private key that signs versions, and a public one that verifies them.

    Nothing is overwritten. The private key is encrypted where TRITONFLEET_SIGNING_KEY_PASSWORD is set.

    Example: tritonfleet key new keys
    """
    from builders.supply_chain.keys import (  # noqa: PLC0415 - no other command pays for its import
        KEY_PASSWORD_VARIABLE,
        KEY_PATH_VARIABLE,
        generate_key,
    )

    pair = generate_key(folder, os.environ.get(KEY_PASSWORD_VARIABLE) or None)
    if as_json:
        private, public = str(pair.private), str(pair.public)
        output.print_json({"private_key": private, "public_key": public, "fingerprint": pair.fingerprint})
        return
    rows = [
        ("private", str(pair.private), f"keep it secret; sign with {KEY_PATH_VARIABLE}={pair.private}"),
        ("public", str(pair.public), f"give it away; verify with {PUBLIC_KEY_VARIABLE}={pair.public}"),
    ]
    output.show(output.table(["key", "file", "use"], rows))
    output.show(f"fingerprint {pair.fingerprint}")


def sign_from_environment() -> Callable[[Path], None] | None:
    """Return what signs a version's folder with the key that the environment names; None where it names none.

    Raises KeyFileError, or MissingExtraError where there is a key and the extra is not installed.
    """
    if not any(os.environ.get(variable) for variable in _KEY_VARIABLES):
        return None
    from builders.supply_chain.keys import signer_from_environment  # noqa: PLC0415 - nobody pays who does not sign
    from builders.supply_chain.signing import sign_version  # noqa: PLC0415

    signer = signer_from_environment(os.environ)
    return None if signer is None else lambda content: sign_version(content, signer)


def _versions(repository: Path, packages: list[str]) -> list[tuple[str, int]]:
    """Return the versions to verify: of `packages`, or all that there are. Raises SourceError where there are none."""
    try:
        there = {
            path.name: version_numbers(path)
            for path in sorted(repository.iterdir())
            if path.is_dir() and not path.name.startswith(".")
        }
    except OSError as exc:
        raise SourceError(f"{repository}: cannot be read: {exc.strerror}; --model-repository names the folder") from exc
    there = {package: versions for package, versions in there.items() if versions}
    unknown = sorted(set(packages) - set(there))
    if unknown:
        raise SourceError(
            f"{repository} has no version of {', '.join(unknown)}; it has versions of: {', '.join(there) or 'none'}"
        )
    if not there:
        raise SourceError(f"{repository} holds no version; `tritonfleet build` makes them")
    return [
        (package, version)
        for package, versions in there.items()
        if not packages or package in packages
        for version in versions
    ]


def _row(entry: _Verified) -> tuple[str, str, str, Text]:
    style = "green" if entry.result.ok else "red"
    signed_by = entry.result.signed_by[:_SHOWN_OF_A_FINGERPRINT]
    return (entry.package, str(entry.version), signed_by, Text(entry.result.state, style))


def _as_data(entry: _Verified) -> dict[str, object]:
    return {
        "package": entry.package,
        "version": entry.version,
        "path": str(entry.path),
        "state": entry.result.state,
        "signed_by": entry.result.signed_by or None,
        "problem": entry.result.problem or None,
    }
