"""The build plan: what makes a new version, why, and when there is nothing to do."""

from dataclasses import replace

import pytest

from builders.plan import (
    CopyStage,
    ExportEncoder,
    ObservedPackage,
    ProveParity,
    Publish,
    PublishedVersion,
    build_key,
    plan_build,
)
from builders.spec import BuildSpec

ENCODER = BuildSpec.model_validate(
    {
        "name": "encoder",
        "summary": "",
        "licence": "Apache-2.0",
        "source": {"kind": "huggingface_encoder", "checkpoint": {"distribution": "d", "path": "p"}, "parity": {}},
    }
)
STAGE = BuildSpec.model_validate(
    {"name": "stage", "summary": "", "licence": "Apache-2.0", "source": {"kind": "stage", "stage": "a.b:C"}}
)
ENSEMBLE = BuildSpec.model_validate(
    {"name": "all", "summary": "", "licence": "Apache-2.0", "source": {"kind": "ensemble"}}
)
SOURCES = {"config.pbtxt": "1", "weights": "2"}


def observed(spec: BuildSpec = ENCODER, *versions: PublishedVersion) -> ObservedPackage:
    return ObservedPackage(spec, SOURCES, {"torch": "2"}, versions)


def published(version: int, package: ObservedPackage) -> PublishedVersion:
    return PublishedVersion(version, build_key(package), package.sources)


@pytest.mark.parametrize(
    ("spec", "kinds"),
    [(ENCODER, [ExportEncoder, ProveParity, Publish]), (STAGE, [CopyStage, Publish]), (ENSEMBLE, [Publish])],
)
def test_a_first_version_has_every_step_of_its_source(spec: BuildSpec, kinds: list[type]) -> None:
    plan = plan_build(observed(spec))
    assert [type(step) for step in plan.steps] == kinds
    assert (plan.version, plan.reason, plan.steps[-1]) == (1, "no version yet", Publish(1))


def test_unchanged_sources_need_no_step() -> None:
    package = observed()
    plan = plan_build(replace(package, versions=(published(3, package), PublishedVersion(2))))
    assert (plan.steps, plan.version, plan.reason) == ((), 3, "up to date")


def test_a_change_makes_the_next_version_and_is_named() -> None:
    before = observed()
    after = replace(before, sources={**SOURCES, "weights": "3", "golden.jsonl": "4"}, versions=(published(3, before),))
    plan = plan_build(after)
    assert (plan.version, plan.reason) == (4, "changed: golden.jsonl, weights")


def test_another_toolchain_makes_the_next_version() -> None:
    before = observed()
    plan = plan_build(replace(before, toolchain={"torch": "3"}, versions=(published(1, before),)))
    assert (plan.version, plan.reason) == (2, "another toolchain")


def test_an_altered_version_is_never_kept() -> None:
    package = observed()
    altered = replace(published(1, package), altered=("model.onnx",))
    plan = plan_build(replace(package, versions=(altered,)))
    assert (plan.version, plan.reason) == (2, "version 1 was altered after it was published: model.onnx")


def test_a_version_without_manifest_is_never_kept() -> None:
    assert plan_build(observed(ENCODER, PublishedVersion(7))).reason == "version 7 has no manifest"
