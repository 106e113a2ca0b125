"""What may be asked of a deployment on the command line, and the API's bodies that say so.

What an option leaves out stays as it is. The API replaces requirements and bounds as a whole, so those of the present
revision are filled in around what is given. `values` reads the words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from control_plane.cli import completion
from control_plane.cli.values import capability, number, pair, size
from control_plane.wanted import Domain, Drift, Isolation

ANY = "any"
NEWEST = "newest"
_CONFIG = "config"
_DEFAULT = "default"
_WHOLE = 100

ReplicasOption = Annotated[
    int | None,
    typer.Option("--replicas", min=0, help="How many servers hold it (default: every server).", show_default=False),
]
MaxReplicas = Annotated[
    int | None, typer.Option("--max-replicas", min=1, help="How many it may become.", show_default=False)
]
Pools = Annotated[
    list[str] | None,
    typer.Option(
        "--pool",
        metavar="NAME=N",
        help="Replicas in a pool of their own. Repeatable.",
        show_default=False,
        autocompletion=completion.replicas_in_pools,
    ),
]
Instances = Annotated[
    str | None,
    typer.Option(
        "--instances",
        metavar="N",
        help="Instances on each replica; 'config' is what its config says.",
        show_default=False,
    ),
]
Priority = Annotated[
    int | None,
    typer.Option("--priority", help="Of two that want one place the higher gets it.", show_default=False),
]
Owner = Annotated[str | None, typer.Option("--owner", help="Whose it is.", show_default=False)]
IsolationOption = Annotated[
    Isolation | None,
    typer.Option("--isolation", help="Whether other deployments may be on its servers.", show_default=False),
]
Spread = Annotated[
    Domain | None,
    typer.Option("--spread", help="What no two of its replicas on GPU slices may share.", show_default=False),
]
DriftOption = Annotated[
    Drift | None,
    typer.Option("--drift", help="Whether changes by hand on a server are undone or reported.", show_default=False),
]
Capabilities = Annotated[
    list[str] | None,
    typer.Option(
        "--require-capability",
        metavar="8.9",
        help="Compute capability of its GPU, again for another that will do; 'any' requires none.",
        show_default=False,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option("--require-memory", metavar="SIZE", help="Memory of its server, such as 8GiB.", show_default=False),
]
MigProfile = Annotated[
    str | None,
    typer.Option(
        "--require-mig",
        metavar="3g.40gb",
        help="MIG profile of its slices; 'any' requires none.",
        show_default=False,
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="NAME=VALUE",
        help="Label of its servers. Repeatable; 'any' requires none.",
        show_default=False,
    ),
]
Split = Annotated[
    list[str] | None,
    typer.Option(
        "--split",
        metavar="VERSION=PERCENT",
        help="A version ('newest' too) and its part of the traffic, again for the others.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was given, read and checked; None, or empty, is what was not."""

    replicas: int | None = None
    max_replicas: int | None = None
    pools: Mapping[str, int] | None = None
    requirements: Mapping[str, Any] | None = None
    rest: Mapping[str, Any] | None = None

    @property
    def needs_present(self) -> bool:
        """Whether only a part of something is given that the API replaces as a whole."""
        return any(it is not None for it in (self.replicas, self.max_replicas, self.pools, self.requirements))

    def body(self, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the fields to send; `before` are the needs of the present revision, None for a new deployment.

        Raises typer.BadParameter.
        """
        said: dict[str, Any] = dict(self.rest or {})
        if self.replicas is not None or self.max_replicas is not None:
            said["replicas"] = self._bounds(before)
        if self.pools is not None:
            kept: dict[str, Any] = dict(before["pools"]) if before is not None else {}
            said["pools"] = kept | {pool: {**kept.get(pool, {}), "min": least} for pool, least in self.pools.items()}
        if self.requirements is not None:
            said["requirements"] = {**(before["requirements"] if before is not None else {}), **self.requirements}
        return said

    def _bounds(self, before: Mapping[str, Any] | None) -> dict[str, Any]:
        present = before["replicas"] if before is not None else None
        if before is not None and self.replicas is None and not isinstance(present, dict):
            raise typer.BadParameter("--max-replicas bounds --replicas, and there is none yet: give both.")
        bounds: dict[str, Any] = dict(present) if isinstance(present, dict) else {}
        given = {"min": self.replicas, "max": self.max_replicas}
        return bounds | {name: value for name, value in given.items() if value is not None}


def wanted(
    *,
    bounds: tuple[int | None, int | None],
    pools: Sequence[str] | None,
    requirements: tuple[Sequence[str] | None, str | None, str | None, Sequence[str] | None],
    instances: str | None,
    **rest: object,
) -> Wanted:
    """Read options: `bounds` are replicas and their most, `requirements` capabilities, memory, MIG profile and labels.

    Raises typer.BadParameter.
    """
    least, most = bounds
    if least is not None and most is not None and most < least:
        raise typer.BadParameter("--max-replicas is below --replicas")
    said = {name: value for name, value in rest.items() if value is not None}
    if instances is not None:
        said["instances"] = _CONFIG if instances == _CONFIG else number("--instances", instances, 1)
    return Wanted(
        least,
        most,
        {name: number("--pool", count, 0) for name, count in _pairs("--pool", pools).items()} if pools else None,
        _requirements(*requirements) or None,
        said,
    )


def _requirements(
    capabilities: Sequence[str] | None, memory: str | None, mig: str | None, labels: Sequence[str] | None
) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if capabilities:
        option = "--require-capability"
        said["compute_capabilities"] = [capability(option, it) for it in _unless_any(option, capabilities)]
    if memory is not None:
        said["memory_bytes"] = size("--require-memory", memory)
    if mig is not None:
        said["mig_profile"] = "" if mig == ANY else mig
    if labels:
        said["labels"] = _pairs("--label", _unless_any("--label", labels))
    return said


def wishes(precisions: list[str] | None, allow_unproven: bool | None) -> dict[str, Any]:
    """Return what was said of the targets, for the body of the call. Raises typer.BadParameter."""
    said: dict[str, Any] = {}
    if precisions:
        if _DEFAULT in precisions and len(precisions) > 1:
            raise typer.BadParameter(f"--precision {_DEFAULT} stands alone: leave the others out.")
        said["precisions"] = [] if precisions == [_DEFAULT] else precisions
    if allow_unproven is not None:
        said["allow_unproven"] = allow_unproven
    return said


def split_versions(split: Sequence[str] | None) -> list[dict[str, Any]] | None:
    """Return the versions and their shares as the API takes them; None where no split is given.

    Raises typer.BadParameter.
    """
    if not split:
        return None
    shares = {
        version: number("--split", percent.removesuffix("%"), 1)
        for version, percent in _pairs("--split", split).items()
    }
    if sum(shares.values()) != _WHOLE:
        raise typer.BadParameter(f"--split: the percentages add up to {sum(shares.values())}, and must to {_WHOLE}")
    return [
        {"version": None if version == NEWEST else number("--split", version, 1), "share": share}
        for version, share in shares.items()
    ]


def _unless_any(option: str, words: Sequence[str]) -> Sequence[str]:
    if ANY in words and len(words) > 1:
        raise typer.BadParameter(f"{option} {ANY} stands alone: leave the others out.")
    return () if ANY in words else words


def _pairs(option: str, words: Sequence[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words or ():
        name, value = pair(option, word)
        if name in found:
            raise typer.BadParameter(f"{option}: {name} is named twice")
        found[name] = value
    return found
