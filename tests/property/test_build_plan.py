"""Properties of the build plan over any sources and any versions that are already there."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from builders.plan import ObservedPackage, Publish, PublishedVersion, build_key, plan_build
from builders.spec import BuildSpec

SPEC = BuildSpec.model_validate({"name": "m", "summary": "", "licence": "x", "source": {"kind": "ensemble"}})
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
packages = st.builds(ObservedPackage, spec=st.just(SPEC), sources=digests, toolchain=digests, versions=versions)


@given(packages)
def test_planning_after_building_is_empty(package: ObservedPackage) -> None:
    plan = plan_build(package)
    made = PublishedVersion(plan.version, plan.build_key, package.sources)
    after = replace(package, versions=(*(v for v in package.versions if v.version != plan.version), made))
    assert plan_build(after).steps == ()


@given(packages, st.randoms(use_true_random=False))
def test_order_of_versions_does_not_matter(package: ObservedPackage, random: object) -> None:
    shuffled = list(package.versions)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert plan_build(replace(package, versions=tuple(shuffled))) == plan_build(package)


@given(packages)
def test_a_published_number_is_never_used_again(package: ObservedPackage) -> None:
    plan = plan_build(package)
    if plan.steps:
        assert plan.steps[-1] == Publish(plan.version)
        assert all(plan.version > published.version for published in package.versions)


@given(packages, digests)
def test_the_key_is_of_the_content_alone(package: ObservedPackage, other: dict[str, str]) -> None:
    same = replace(package, sources=dict(sorted(package.sources.items(), reverse=True)), versions=())
    assert build_key(same) == build_key(package)
    changed = replace(package, sources=other)
    assert (build_key(changed) == build_key(package)) == (other == dict(package.sources))
