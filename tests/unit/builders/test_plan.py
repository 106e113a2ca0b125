"""The build plan: what is made here, what is cached, what waits for another machine, and why a version is published."""

from collections.abc import Mapping
from dataclasses import replace

from builders.artifacts import Artifact
from builders.manifest import FileEntry
from builders.plan import (
    BuildPlan,
    Cached,
    ExportStep,
    Failed,
    ObservedPackage,
    Pending,
    PublishedVersion,
    ToDo,
    export_key,
    plan_build,
    plan_export,
    target_key,
)
from builders.spec import BuildSpec
from builders.targets import Gpu, Host, Target

TARGETS: list[dict[str, object]] = [
    {"runtime": "onnxruntime", "device": "cpu", "precision": "fp32"},
    {"runtime": "onnxruntime", "device": "cuda", "precision": "fp16", "required": False},
    {"runtime": "tensorrt", "device": "sm_90", "precision": "fp16", "required": False},
]
TOOLS = {"": {"torch": "2"}, "onnxruntime": {"onnxruntime": "1"}, "tensorrt": {"tensorrt": "absent"}}
CPU = Host("a CPU", distributions={"onnxruntime": "1"})
GPU = Host("a CPU", (Gpu("H100", "9.0", 80 * 10**9),), {"onnxruntime-gpu": "1", "tensorrt": "10.3"})


def spec_of(kind: str = "huggingface_encoder", **more: object) -> BuildSpec:
    source: dict[str, object] = {"kind": kind}
    if kind == "huggingface_encoder":
        source["checkpoint"] = {"distribution": "d", "path": "p"}
        more.setdefault("targets", TARGETS)
    if kind == "stage":
        source["stage"] = "a.b:C"
    return BuildSpec.model_validate({"name": "m", "summary": "", "licence": "x", "source": source, **more})


def observed(spec: BuildSpec | None = None, host: Host = CPU) -> ObservedPackage:
    return ObservedPackage(spec or spec_of(), {"model.toml": "1", "weights": "2"}, {}, TOOLS, host=host)


def export_of(package: ObservedPackage) -> ExportStep:
    export = plan_export(package)
    assert export is not None
    return export


def stored(package: ObservedPackage, *artifacts: Artifact) -> ObservedPackage:
    by_key: dict[str, tuple[Artifact, ...]] = dict(package.artifacts)
    for artifact in artifacts:
        by_key[artifact.key] = (*by_key.get(artifact.key, ()), artifact)
    return replace(package, artifacts=by_key)


def exported(package: ObservedPackage, toolchain: Mapping[str, str] = TOOLS[""]) -> ObservedPackage:
    return stored(package, Artifact(export_key(package), "", toolchain, {"model.onnx": FileEntry("0", 1)}))


def made(package: ObservedPackage, number: int, toolchain: Mapping[str, str], **more: str) -> Artifact:
    spec = package.spec.graph_targets[number]
    key = target_key(package, spec, export_of(package))
    files = {} if more.get("failed") else {f"{spec.target}.onnx": FileEntry("1", 1)}
    return Artifact(key, str(spec.target), toolchain, files, **more)  # type: ignore[arg-type]  # texts alone are given


def published(package: ObservedPackage, plan: BuildPlan) -> ObservedPackage:
    version = PublishedVersion(plan.version, plan.build_key, package.sources)
    return replace(package, versions=(*package.versions, version))


def test_a_first_plan_makes_what_can_be_made_here_and_says_what_the_rest_needs() -> None:
    plan = plan_build(observed())
    assert plan.steps == ("export", "build onnxruntime-cpu-fp32", "build onnxruntime-cuda-fp16", "publish 1")
    assert plan.missing == {"tensorrt-sm_90-fp16": "needs a GPU of sm_90"}
    assert [step.unproven for step in plan.targets] == ["", "needs an NVIDIA GPU", "needs a GPU of sm_90"]


def test_what_is_in_the_store_is_not_made_again() -> None:
    package = exported(observed())
    package = stored(package, made(package, 0, TOOLS["onnxruntime"]))
    plan = plan_build(package)
    assert isinstance(plan.targets[0].state, Cached)
    assert plan.steps == ("build onnxruntime-cuda-fp16", "publish 1")


def test_a_required_target_that_waits_blocks_the_version_and_an_optional_one_does_not() -> None:
    needed = spec_of(targets=[TARGETS[0], dict(TARGETS[2], required=True)])
    plan = plan_build(observed(needed))
    assert plan.blocked == ("tensorrt-sm_90-fp16",)
    assert plan.steps == ("export", "build onnxruntime-cpu-fp32")


def test_an_engine_that_another_machine_built_is_taken_with_every_tensorrt_version() -> None:
    package = exported(observed())
    engines = [made(package, 2, {"tensorrt": version}) for version in ("10.3", "10.7")]
    step = plan_build(stored(package, *engines)).targets[2]
    assert isinstance(step.state, Cached)
    assert {step.state.artifact.toolchain["tensorrt"], step.others[0].toolchain["tensorrt"]} == {"10.3", "10.7"}


def test_an_export_of_other_tools_serves_a_machine_that_cannot_export() -> None:
    lacking = replace(observed(host=GPU), export_lacks="needs torch")
    assert plan_build(lacking).blocked[:2] == ("export", "onnxruntime-cpu-fp32")
    package = exported(lacking, {"torch": "1"})
    plan = plan_build(package)
    assert isinstance(export_of(package).state, Cached)
    assert "build tensorrt-sm_90-fp16" in plan.steps


def test_an_export_of_other_tools_is_taken_so_that_builders_meet() -> None:
    package = stored(exported(observed(), {"torch": "1.9"}))
    state = export_of(package).state
    assert isinstance(state, Cached)
    assert state.artifact.toolchain == {"torch": "1.9"}


def test_a_target_of_other_tools_is_made_again_here_and_published_where_nothing_is_made() -> None:
    package = exported(observed())
    other = made(package, 0, {"onnxruntime": "0.9"})
    newer = made(package, 0, {"onnxruntime": "0.10"})
    package = stored(package, other, newer)
    first = plan_build(package).targets[0].state
    assert isinstance(first, ToDo)
    assert "onnxruntime 0.9" in first.reason
    publishing = plan_build(package, frozenset())
    assert publishing.targets[0].state == Cached(newer), "0.10 is newer than 0.9"
    assert publishing.blocked == ()


def test_what_these_tools_cannot_make_is_taken_from_others_that_could() -> None:
    package = exported(observed())
    failed = made(package, 0, TOOLS["onnxruntime"], failed="no such operator")
    other = made(package, 0, {"onnxruntime": "9"})
    assert plan_build(stored(package, failed, other)).targets[0].state == Cached(other)


def test_a_failure_is_not_tried_again_with_the_same_tools() -> None:
    package = exported(observed())
    failed = made(package, 1, TOOLS["onnxruntime"], failed="cosine 0.1")
    plan = plan_build(stored(package, failed))
    assert plan.targets[1].state == Failed("cosine 0.1")
    assert plan.missing["onnxruntime-cuda-fp16"] == "cosine 0.1"


def test_a_proven_artifact_of_another_machine_is_taken_where_this_one_cannot_prove() -> None:
    package = exported(observed())
    unproven = made(package, 1, TOOLS["onnxruntime"], unproven="needs an NVIDIA GPU")
    proven = made(package, 1, {"onnxruntime": "2"})
    state = plan_build(stored(package, unproven, proven)).targets[1].state
    assert state == Cached(proven)


def test_what_was_made_where_it_could_not_be_run_is_made_again_where_it_can() -> None:
    package = exported(observed(host=replace(GPU, distributions={**GPU.distributions, "onnxruntime-gpu": "1"})))
    unproven = made(package, 1, TOOLS["onnxruntime"], unproven="needs an NVIDIA GPU")
    step = plan_build(stored(package, unproven)).targets[1]
    told = "made where it could not be run (needs an NVIDIA GPU); here it is proven and measured"
    assert (step.state, step.unproven) == (ToDo(told), "")
    done = plan_build(stored(package, made(package, 1, TOOLS["onnxruntime"])))
    assert isinstance(done.targets[1].state, Cached)


def test_unchanged_sources_need_no_step_even_where_the_store_is_gone() -> None:
    package = observed()
    plan = plan_build(published(package, plan_build(package)))
    assert (plan.steps, plan.version, plan.reason) == ((), 1, "up to date")


def test_a_change_makes_the_next_version_and_is_named() -> None:
    before = observed()
    after = replace(published(before, plan_build(before)), sources={"model.toml": "1", "weights": "3", "golden": "4"})
    plan = plan_build(after)
    assert (plan.version, plan.reason) == (2, "changed: golden, weights")


def test_an_engine_that_came_into_the_store_makes_the_next_version() -> None:
    package = exported(observed())
    package = published(package, plan_build(package))
    plan = plan_build(stored(package, made(package, 2, {"tensorrt": "10.3"})))
    assert (plan.version, plan.reason) == (2, "other artifacts or tools")


def test_an_altered_version_and_one_without_manifest_are_never_kept() -> None:
    package = observed()
    plan = plan_build(package)
    altered = PublishedVersion(1, plan.build_key, package.sources, ("model.onnx",))
    again = plan_build(replace(package, versions=(altered,)))
    assert (again.version, again.reason) == (2, "version 1 was altered after it was published: model.onnx")
    bare = plan_build(replace(package, versions=(PublishedVersion(7),)))
    assert bare.reason == "version 7 has no manifest"


def test_what_is_not_asked_for_is_missing_and_not_made() -> None:
    plan = plan_build(observed(), frozenset({Target("onnxruntime", "cuda", "fp16")}))
    assert plan.targets[0].state == Pending("not built yet")
    assert plan.steps == ("export", "build onnxruntime-cuda-fp16")


def test_packages_without_a_graph_have_an_export_or_nothing_but_a_version() -> None:
    assert plan_build(observed(spec_of("stage"))).steps == ("export", "publish 1")
    assert plan_build(observed(spec_of("ensemble"))).steps == ("publish 1",)
    assert plan_build(observed(spec_of("triton_model"))).steps == ()


def test_a_config_left_behind_by_a_killed_build_is_restored() -> None:
    package = observed()
    plan = plan_build(replace(published(package, plan_build(package)), config_differs=True))
    assert plan.steps == ("restore config.pbtxt",)
