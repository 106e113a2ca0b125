"""What `tritonfleet build` shows: a row for each target, each candidate, each step of a plan; and the same as data."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from builders.artifacts import Artifact
from builders.pipeline import BuildResult
from builders.plan import BuildPlan, Cached, Failed, Pending, State, TargetStep, ToDo
from control_plane.cli import output

_Row = tuple[str | Text, ...]


def build_table(results: list[BuildResult]) -> Table:
    """Return a table of what was built and what was not: size, build time, parity, speed-up, and why."""
    return output.table(
        [
            "package",
            ">version",
            "target",
            "",
            ">size",
            ">build s",
            ">lowest cosine",
            ">largest error",
            ">speed-up",
            "candidate",
        ],
        [row for result in results for row in _rows(result)],
    )


def _rows(result: BuildResult) -> Iterator[_Row]:
    version = str(result.manifest.version) if result.manifest else "none"
    why = f"published: {result.plan.reason}" if result.built else _not_published(result)
    size = output.size(result.manifest.total_bytes) if result.manifest else ""
    yield (result.plan.package, version, "", why, size, f"{result.seconds:.1f}", "", "", "", "")
    errors = {target: str(error) for target, error in result.errors}
    for step in result.plan.targets:
        target = str(step.spec.target)
        if isinstance(step.state, Cached):
            yield ("", "", target, _kept(result, target, step.state.artifact), *_figures(step.state.artifact))
        else:
            yield ("", "", target, Text(_state(step, errors.get(target)), "yellow"), "", "", "", "", "", "")


def _not_published(result: BuildResult) -> str:
    if result.manifest is not None:
        return "up to date"
    if result.plan.blocked:
        return f"not published: {', '.join(result.plan.blocked)} missing"
    return "not published"


def _kept(result: BuildResult, target: str, artifact: Artifact) -> Text:
    word = "built" if f"build {target}" in result.made else "cached"
    return Text(f"{word}, unproven: {artifact.unproven}", "yellow") if artifact.unproven else Text(f"{word}, proven")


def _figures(artifact: Artifact) -> tuple[str, ...]:
    parity, speed_up = artifact.parity, artifact.speed_up
    return (
        output.size(artifact.total_bytes),
        f"{artifact.seconds:.1f}",
        f"{parity.min_cosine:.6f}" if parity else "",
        f"{parity.max_abs_error:.1e}" if parity else "",
        f"{speed_up:.2f}x" if speed_up else "",
        artifact.chosen,
    )


def _state(step: TargetStep, error: str | None) -> str:
    word = "required" if step.spec.required else "optional"
    match step.state:
        case Failed(reason=reason):
            return f"failed ({word}): {error or reason}"
        case Pending(reason=reason):
            return f"failed ({word}): {error}" if error else f"pending ({word}): {reason}"
        case ToDo(reason=reason):
            return f"to do ({word}): {error or reason}"
        case Cached():
            return "cached"


def candidates_table(results: list[BuildResult]) -> Table:
    """Return a table of every candidate: milliseconds a call at each batch size, how close, kept or why not."""
    rows = [
        (
            result.plan.package,
            str(step.spec.target),
            candidate.name,
            "  ".join(f"{batch}: {1000 * seconds:.1f}" for batch, seconds in _by_batch(candidate.seconds)),
            output.size(candidate.bytes) if candidate.bytes else "",
            "" if candidate.min_cosine is None else f"{candidate.min_cosine:.6f}",
            "kept" if candidate.name == step.state.artifact.chosen else candidate.refused,
        )
        for result in results
        for step in result.plan.targets
        if isinstance(step.state, Cached)
        for candidate in step.state.artifact.candidates
    ]
    return output.table(["package", "target", "candidate", "ms by batch size", ">size", ">lowest cosine", ""], rows)


def _by_batch(seconds: Any) -> list[tuple[int, float]]:  # noqa: ANN401 - a mapping from a record
    return sorted((int(batch), value) for batch, value in seconds.items())


def plan_table(plans: list[BuildPlan]) -> Table:
    """Return a table of every step: done before, to be done and why, or waiting for what."""
    return output.table(["package", "step", "state", "why"], [row for plan in plans for row in _plan_rows(plan)])


def _plan_rows(plan: BuildPlan) -> Iterator[_Row]:
    if plan.export is not None:
        yield (plan.package, "export", *_told(plan.export.state))
    for step in plan.targets:
        yield (plan.package, f"build {step.spec.target}", *_told(step.state))
    if plan.publish is None:
        yield (plan.package, f"publish {plan.version}", "done", plan.reason)
    elif plan.blocked:
        yield (
            plan.package,
            f"publish {plan.version}",
            Text("blocked", "yellow"),
            f"missing: {', '.join(plan.blocked)}",
        )
    else:
        yield (plan.package, f"publish {plan.version}", "to do", plan.reason)


def _told(state: State) -> tuple[str | Text, str]:
    match state:
        case Cached(artifact=artifact):
            tools = ", ".join(f"{name} {version}" for name, version in sorted(artifact.toolchain.items()))
            return ("cached", f"made with {tools}" if tools else "")
        case ToDo(reason=reason):
            return ("to do", reason)
        case Pending(reason=reason):
            return (Text("pending", "yellow"), reason)
        case Failed(reason=reason):
            return (Text("failed", "red"), reason)


def plan_data(plan: BuildPlan) -> dict[str, Any]:
    """Return a plan as data."""
    return {
        "package": plan.package,
        "version": plan.version,
        "steps": list(plan.steps),
        "reason": plan.reason,
        "build_key": plan.build_key,
        "blocked": list(plan.blocked),
        "missing": dict(plan.missing),
        "targets": [
            {
                "target": str(step.spec.target),
                "required": step.spec.required,
                "key": step.key,
                **_state_data(step.state),
            }
            for step in plan.targets
        ],
    }


def _state_data(state: State) -> dict[str, Any]:
    word, _ = _told(state)
    return {"state": str(word), "reason": "" if isinstance(state, Cached) else state.reason}


def build_data(result: BuildResult) -> dict[str, Any]:
    """Return what a build ended with as data."""
    manifest = result.manifest
    errors = {target: str(error) for target, error in result.errors}
    return {
        "package": result.plan.package,
        "version": None if manifest is None else manifest.version,
        "built": result.built,
        "made": list(result.made),
        "reason": result.plan.reason,
        "blocked": list(result.plan.blocked),
        "path": None if result.path is None else str(result.path),
        "bytes": None if manifest is None else manifest.total_bytes,
        "build_key": result.plan.build_key,
        "seconds": round(result.seconds, 3),
        "targets": [_target_data(step, errors.get(str(step.spec.target))) for step in result.plan.targets],
    }


def _target_data(step: TargetStep, error: str | None) -> dict[str, Any]:
    data: dict[str, Any] = {
        "target": str(step.spec.target),
        "required": step.spec.required,
        **_state_data(step.state),
        "error": error,
    }
    if isinstance(step.state, Cached):
        artifact = step.state.artifact
        data.update(
            proven=not artifact.unproven,
            unproven=artifact.unproven,
            bytes=artifact.total_bytes,
            seconds=round(artifact.seconds, 3),
            chosen=artifact.chosen,
            speed_up=artifact.speed_up,
            parity=None if artifact.parity is None else asdict(artifact.parity),
            candidates=[asdict(candidate) for candidate in artifact.candidates],
        )
    return data
