"""Properties of the build plan over any sources, any store and any versions that are already there."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from builders.artifacts import Artifact
from builders.manifest import FileEntry
from builders.plan import ObservedPackage, PublishedVersion, ToDo, export_key, plan_build, plan_export, target_key
from builders.spec import BuildSpec
from builders.targets import Host

SPEC = BuildSpec.model_validate(
    {
        "name": "m",
        "summary": "",
        "licence": "x",
        "source": {"kind": "onnx", "file": {"path": "m.onnx"}},
        "targets": [
            {"runtime": "onnxruntime", "device": "cpu", "precision": "fp32"},
            {"runtime": "onnxruntime", "device": "cpu", "precision": "int8", "required": False},
            {"runtime": "tensorrt", "device": "sm_90", "precision": "fp16", "required": False},
        ],
    }
)
HOST = Host(distributions={"onnxruntime": "1"})
digests = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("123"), max_size=4)
versions = st.lists(
    st.builds(
        PublishedVersion,
        version=st.integers(1, 50),
        build_key=st.none() | st.sampled_from(["k1", "k2"]),
        sources=st.none() | digests,
        altered=st.sampled_from([(), ("f",)]),
    ),
    unique_by=lambda published: published.version,
    max_size=5,
).map(tuple)
tools = st.fixed_dictionaries({"": st.just({"onnx": "1"}), "onnxruntime": st.sampled_from([{"o": "1"}, {"o": "2"}])})
bare = st.builds(
    ObservedPackage, spec=st.just(SPEC), sources=digests, toolchains=tools, host=st.just(HOST), versions=versions
)


@st.composite
def packages(draw: st.DrawFn) -> ObservedPackage:
    """Draw a package with any part of what could be in the store, made by any tools, failed or not."""
    package = draw(bare)
    if draw(st.booleans()):
        export = Artifact(export_key(package), "", {"onnx": "1"}, {"model.onnx": FileEntry("0", 1)})
        package = replace(package, artifacts={export.key: (export,)})
    step = plan_export(package)
    assert step is not None
    for spec in draw(st.lists(st.sampled_from(SPEC.graph_targets), unique_by=lambda spec: str(spec.target))):
        key = target_key(package, spec, step)
        made = tuple(
            Artifact(key, str(spec.target), {"o": version}, {}, failed=draw(st.sampled_from(["", "no"])))
            for version in sorted(draw(st.sets(st.sampled_from("123"), min_size=1)))
        )
        package = replace(package, artifacts={**package.artifacts, key: made})
    return package


def after(package: ObservedPackage) -> ObservedPackage:
    """Return what is observed once the plan was carried out: everything to be done is in the store, and published."""
    plan = plan_build(package)
    artifacts = dict(package.artifacts)
    if plan.export is not None and isinstance(plan.export.state, ToDo):
        artifacts[plan.export.key] = (
            *artifacts.get(plan.export.key, ()),
            Artifact(plan.export.key, "", plan.export.toolchain, {}),
        )
    for step in plan.targets:
        if isinstance(step.state, ToDo):
            built = Artifact(step.key, str(step.spec.target), step.toolchain, {})
            artifacts[step.key] = (*artifacts.get(step.key, ()), built)
    package = replace(package, artifacts=artifacts)
    if plan.publish is None or plan.blocked:
        return package
    made = PublishedVersion(plan.version, plan.build_key, package.sources)
    return replace(package, versions=(*(v for v in package.versions if v.version != plan.version), made))


@given(packages())
def test_planning_after_building_is_empty(package: ObservedPackage) -> None:
    assert plan_build(after(package)).steps == ()


@given(packages(), st.randoms(use_true_random=False))
def test_order_of_versions_and_of_sources_does_not_matter(package: ObservedPackage, random: object) -> None:
    shuffled = list(package.versions)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    sources = dict(sorted(package.sources.items(), reverse=True))
    assert plan_build(replace(package, versions=tuple(shuffled), sources=sources)) == plan_build(package)


@given(packages())
def test_a_published_number_is_never_used_again(package: ObservedPackage) -> None:
    plan = plan_build(package)
    if plan.publish:
        assert all(plan.version > published.version for published in package.versions)


@given(packages())
def test_a_version_is_never_published_without_what_is_required(package: ObservedPackage) -> None:
    plan = plan_build(package)
    required = {str(spec.target) for spec in SPEC.graph_targets if spec.required}
    assert bool(required & set(plan.missing)) == bool(set(plan.blocked) & required) or plan.publish is None
    assert not any(step.startswith("publish") for step in plan.steps) or not plan.blocked


@given(bare, digests)
def test_keys_are_of_the_content_alone(package: ObservedPackage, other: dict[str, str]) -> None:
    changed = replace(package, sources=other)
    assert (export_key(changed) == export_key(package)) == (other == dict(package.sources))
