"""Which target a server gets: examples, and laws for any version and server that Hypothesis can think of."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.manifest import ManifestTarget
from builders.releases import TritonRelease
from builders.selection import Choice, Refusal, ServerFacts, cc_model_filenames, parse_target, select
from builders.targets import PRECISIONS, Precision, Target, target_problem

RELEASE = TritonRelease("24.12", "2.53.0", "10.7.0.23", "12.6.3", "1.20.1")
ALL_BACKENDS = frozenset({"onnxruntime", "tensorrt", "tensorrt_rtx"})
CPU = ServerFacts((), RELEASE, frozenset({"onnxruntime"}))
H100 = ServerFacts(("9.0",), RELEASE, ALL_BACKENDS)
COMPATIBLE_H100 = replace(H100, version_compatible=True)
L4 = ServerFacts(("8.9",), RELEASE, ALL_BACKENDS, {"tensorrt_rtx": "1.7.1.116"})


def made(name: str, **changed: object) -> ManifestTarget:
    target = parse_target(name)
    assert target is not None
    versions = {"onnxruntime": "1.20.1", "tensorrt": "10.7.0.23", "tensorrt_rtx": "1.7.1.116"}
    own = ManifestTarget(f"{name}.file", f"config.{name}.pbtxt", {target.runtime: versions[target.runtime]})
    return replace(own, **changed)  # type: ignore[arg-type]


def version(*names: str, **changed: ManifestTarget) -> dict[str, ManifestTarget]:
    return {name: made(name) for name in names} | changed


EVERYWHERE = version(
    "onnxruntime-cpu-fp32",
    "onnxruntime-cpu-int8",
    "onnxruntime-cuda-fp32",
    "tensorrt-sm_89-fp32",
    "tensorrt-sm_90-fp32",
)


def chosen(
    targets: dict[str, ManifestTarget], server: ServerFacts, *precisions: Precision, allow_unproven: bool = False
) -> str:
    choice = select(targets, server, precisions=precisions, allow_unproven=allow_unproven)
    return choice.name if isinstance(choice, Choice) else choice.sentence


def test_every_server_gets_its_own() -> None:
    assert chosen(EVERYWHERE, CPU) == "onnxruntime-cpu-fp32"
    assert chosen(EVERYWHERE, L4) == "tensorrt-sm_89-fp32"
    assert chosen(EVERYWHERE, H100) == "tensorrt-sm_90-fp32"
    assert chosen(EVERYWHERE, replace(H100, compute_capabilities=("8.0",))) == "onnxruntime-cuda-fp32"
    assert chosen(EVERYWHERE, replace(H100, backends=frozenset({"onnxruntime"}))) == "onnxruntime-cuda-fp32"


def test_a_choice_says_why_not_the_others() -> None:
    choice = select(EVERYWHERE, L4)
    assert isinstance(choice, Choice)
    assert (choice.target, choice.entry) == (Target("tensorrt", "sm_89", "fp32"), EVERYWHERE["tensorrt-sm_89-fp32"])
    assert choice.passed_over == {
        "onnxruntime-cpu-fp32": "fits too; tensorrt-sm_89-fp32 comes first",
        "onnxruntime-cpu-int8": "is int8; fp32 is the most precise for the device, and no other is wished",
        "onnxruntime-cuda-fp32": "fits too; tensorrt-sm_89-fp32 comes first",
        "tensorrt-sm_90-fp32": "is for a GPU of compute capability 9.0, and the server has 8.9",
    }


def test_a_lower_precision_is_chosen_only_on_a_wish() -> None:
    targets = version("onnxruntime-cpu-fp32", "onnxruntime-cpu-int8", "tensorrt-sm_90-fp16")
    assert chosen(targets, CPU) == "onnxruntime-cpu-fp32"
    assert chosen(targets, H100, "fp16") == "tensorrt-sm_90-fp16"
    assert chosen(targets, CPU, "fp16", "fp32") == "onnxruntime-cpu-fp32"
    assert chosen(targets, H100, "fp32", "fp16") == "onnxruntime-cpu-fp32"
    assert chosen(targets, CPU, "int8") == "onnxruntime-cpu-int8"
    assert "onnxruntime-cpu-int8 is int8; fp16 or bf16 is wished" in chosen(targets, CPU, "fp16", "bf16")


def test_a_gpu_gets_what_was_built_for_it_even_where_the_cpus_is_more_precise() -> None:
    targets = version("onnxruntime-cpu-fp32", "tensorrt-sm_90-fp16", "tensorrt-sm_90-int8", "tensorrt-sm_80-fp32")
    assert chosen(targets, H100) == "tensorrt-sm_90-fp16"


def test_the_order_of_runtimes() -> None:
    names = ["tensorrt-sm_89-fp32", "tensorrt_rtx-sm_89-fp32", "onnxruntime-cuda-fp32", "onnxruntime-cpu-fp32"]
    for index in range(len(names)):
        assert chosen(version(*names[index:]), L4) == names[index]


def test_an_unproven_one_only_where_that_is_allowed() -> None:
    targets = version(**{"tensorrt_rtx-sm_89-fp32": made("tensorrt_rtx-sm_89-fp32", unproven="needs a GPU of sm_89")})
    assert chosen(targets, L4) == (
        "no target of the version fits the server: tensorrt_rtx-sm_89-fp32 is unproven (needs a GPU of sm_89), and the "
        "deployment does not allow that"
    )
    assert chosen(targets, L4, allow_unproven=True) == "tensorrt_rtx-sm_89-fp32"


def test_an_engine_of_another_tensorrt_is_refused_with_what_to_build() -> None:
    targets = version(**{"tensorrt-sm_90-fp32": made("tensorrt-sm_90-fp32", toolchain={"tensorrt": "10.3.0.26"})})
    assert chosen(targets, H100) == (
        "no target of the version fits the server: tensorrt-sm_90-fp32 cannot be loaded: the engine is of TensorRT "
        "10.3.0.26; this server is Triton 24.12 with TensorRT 10.7.0.23: build it with TensorRT 10.7.0.23, or "
        "version-compatible with that TensorRT or an older one"
    )
    compatible = {name: replace(it, options={"version_compatible": "true"}) for name, it in targets.items()}
    assert chosen(compatible, COMPATIBLE_H100) == "tensorrt-sm_90-fp32"
    assert chosen(targets, replace(H100, versions={"tensorrt": "10.3.0.26"})) == "tensorrt-sm_90-fp32"
    assert "is not known" in chosen(compatible, replace(COMPATIBLE_H100, release=None))
    nameless = {name: replace(it, toolchain={}) for name, it in targets.items()}
    assert "the manifest does not say of which TensorRT it is" in chosen(nameless, H100)


@pytest.mark.parametrize("tensorrt", ["10.3.0.26", "10.7.0.23"])
def test_a_version_compatible_engine_needs_a_server_that_was_started_for_it(tensorrt: str) -> None:
    name = "tensorrt-sm_90-fp32"
    targets = {name: made(name, toolchain={"tensorrt": tensorrt}, options={"version_compatible": "true"})}
    assert chosen(targets, H100) == (
        "no target of the version fits the server: tensorrt-sm_90-fp32 cannot be loaded: the engine is "
        "version-compatible, and the server does not take such engines: start tritonserver with "
        "--backend-config=tensorrt,version-compatible=true"
    )
    assert chosen(targets, COMPATIBLE_H100) == name


def test_engines_of_several_tensorrt_versions_stand_side_by_side() -> None:
    targets = {
        "tensorrt-sm_90-fp32": made("tensorrt-sm_90-fp32", toolchain={"tensorrt": "10.5.0.18"}),
        "tensorrt-sm_90-fp32@10.7.0.23": made("tensorrt-sm_90-fp32@10.7.0.23"),
    }
    assert chosen(targets, H100) == "tensorrt-sm_90-fp32@10.7.0.23"
    assert chosen(targets, replace(H100, versions={"tensorrt": "10.5.0.18"})) == "tensorrt-sm_90-fp32"
    every = {name: replace(it, options={"version_compatible": "true"}) for name, it in targets.items()}
    assert (
        chosen(every, replace(COMPATIBLE_H100, versions={"tensorrt": "10.9.0.34"})) == "tensorrt-sm_90-fp32@10.7.0.23"
    )
    plain_is_better = every | {"tensorrt-sm_90-fp32": targets["tensorrt-sm_90-fp32"]}
    assert (
        chosen(plain_is_better, replace(COMPATIBLE_H100, versions={"tensorrt": "10.5.0.18"})) == "tensorrt-sm_90-fp32"
    )


@pytest.mark.parametrize(
    ("option", "own", "capability", "loads"),
    [
        ("ampere_plus", "sm_80", "8.9", True),
        ("ampere_plus", "sm_90", "8.0", True),
        ("ampere_plus", "sm_80", "12.0", True),
        ("ampere_plus", "sm_80", "7.5", False),
        ("same_compute_capability", "sm_89", "8.9", True),
        ("same_compute_capability", "sm_80", "8.6", False),
        ("", "sm_80", "8.6", False),
    ],
)
def test_hardware_compatible_engines(option: str, own: str, capability: str, *, loads: bool) -> None:
    name = f"tensorrt-{own}-fp32"
    targets = {name: made(name, options={"hardware_compatible": option} if option else {})}
    assert (chosen(targets, replace(H100, compute_capabilities=(capability,))) == name) == loads


def test_the_very_architecture_comes_before_a_compatible_one() -> None:
    targets = version("tensorrt-sm_90-fp32") | {
        "tensorrt-sm_80-fp32": made("tensorrt-sm_80-fp32", options={"hardware_compatible": "ampere_plus"})
    }
    assert chosen(targets, H100) == "tensorrt-sm_90-fp32"
    assert chosen(targets, L4) == "tensorrt-sm_80-fp32"
    assert chosen(targets, replace(H100, compute_capabilities=("8.0", "9.0"))) == "tensorrt-sm_80-fp32"


def test_an_rtx_engine_loads_on_the_release_that_made_it() -> None:
    targets = version("tensorrt_rtx-sm_89-fp32")
    told = chosen(targets, replace(L4, versions={"tensorrt_rtx": "1.8.0.1"}))
    assert "the engine is of TensorRT-RTX 1.7.1.116; the server has 1.8.0.1: build it with TensorRT-RTX 1.8.0.1" in told
    assert chosen(targets, replace(L4, versions={})) == "tensorrt_rtx-sm_89-fp32"


def test_an_onnx_file_that_is_too_new_is_refused() -> None:
    options = {"ir_version": "11", "opset": "23"}
    targets = {"onnxruntime-cpu-fp32": made("onnxruntime-cpu-fp32", options=options)}
    assert "the model has opset 23; Triton 24.12 with ONNX Runtime 1.20.1 opens up to 21" in chosen(targets, CPU)
    assert chosen(targets, replace(CPU, versions={"onnxruntime": "1.23.2"})) == "onnxruntime-cpu-fp32"


@pytest.mark.parametrize(
    ("server", "wishes", "to_build"),
    [
        (H100, (), "tensorrt-sm_90-fp16"),
        (H100, ("int8",), "tensorrt-sm_90-int8"),
        (replace(L4, backends=frozenset({"tensorrt_rtx", "onnxruntime"})), (), "tensorrt_rtx-sm_89-fp16"),
        (replace(H100, backends=frozenset({"tensorrt_rtx", "onnxruntime"})), (), "onnxruntime-cuda-fp32"),
        (replace(H100, compute_capabilities=("8.0", "9.0")), (), "onnxruntime-cuda-fp32"),
        (CPU, (), "onnxruntime-cpu-fp32"),
        (CPU, ("fp16", "int8"), "onnxruntime-cpu-int8"),
    ],
)
def test_where_nothing_is_for_the_server_what_to_build_is_told(
    server: ServerFacts, wishes: tuple[Precision, ...], to_build: str
) -> None:
    told = chosen(version("tensorrt-sm_75-fp32"), server, *wishes)
    assert told.endswith(f"; build {to_build} for it")
    assert chosen(version("tensorrt-sm_75-fp32", to_build), server, *wishes) == to_build


def test_what_cannot_be_built_for_a_server_is_not_told() -> None:
    targets = version("tensorrt-sm_75-fp32")
    assert chosen(targets, replace(CPU, backends=frozenset({"python"}))).endswith("and the server has no GPU")
    assert chosen(targets, CPU, "fp8").endswith("and the server has no GPU")


def test_what_is_no_target_is_told_and_never_chosen() -> None:
    targets = {"coreml-m4-fp16": made("onnxruntime-cpu-fp32"), **version("onnxruntime-cuda-fp32")}
    refusal = select(targets, CPU)
    assert isinstance(refusal, Refusal)
    assert refusal.causes == {
        "coreml-m4-fp16": "is no target that this release of Tritonfleet knows",
        "onnxruntime-cuda-fp32": "needs an NVIDIA GPU, and the server has none",
    }
    assert chosen({}, CPU) == "no target of the version fits the server: it has none"


@pytest.mark.parametrize(
    "name", ["", "onnxruntime", "onnxruntime-cpu", "onnxruntime--fp32", "tensorrt-sm_89-fp17", "-cpu-"]
)
def test_names_of_no_target(name: str) -> None:
    assert parse_target(name) is None


def test_filenames_by_compute_capability() -> None:
    targets = version("onnxruntime-cuda-fp16", "tensorrt-sm_89-fp16", "tensorrt-sm_90-fp16", "tensorrt-sm_80-fp32")
    targets["tensorrt-sm_90-fp16@10.5.0"] = made("tensorrt-sm_90-fp16@10.5.0")
    files = {name: target.filename for name, target in targets.items()}
    both = {"8.9": "tensorrt-sm_89-fp16.file", "9.0": "tensorrt-sm_90-fp16.file"}
    assert cc_model_filenames(files, "tensorrt-sm_89-fp16") == both
    other = cc_model_filenames(files, "tensorrt-sm_90-fp16@10.5.0")
    assert other == {**both, "9.0": "tensorrt-sm_90-fp16@10.5.0.file"}, "the target itself comes first"
    assert cc_model_filenames(files, "onnxruntime-cuda-fp16") == {}


DEVICES = ["cpu", "cuda", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_120"]
TARGETS = [
    target
    for runtime in ("onnxruntime", "tensorrt", "tensorrt_rtx")
    for device in DEVICES
    for precision in PRECISIONS
    if target_problem(target := Target(runtime, device, precision)) is None
]
VERSIONS = st.sampled_from(["10.5.0.18", "10.7.0.23", "10.9.0.34", "11.0.0.114"])


@st.composite
def entries(draw: st.DrawFn) -> tuple[str, ManifestTarget]:
    target = draw(st.sampled_from(TARGETS))
    suffix = draw(st.sampled_from(["", "@10.5.0.18"])) if target.runtime == "tensorrt" else ""
    hardware = draw(st.sampled_from(["", "", "ampere_plus", "same_compute_capability"]))
    options = {"hardware_compatible": hardware} if hardware and target.runtime == "tensorrt" else {}
    if draw(st.booleans()):
        options["version_compatible"] = "true"
    name = f"{target}{suffix}"
    toolchain: dict[str, str] = {target.runtime: draw(VERSIONS)}
    return name, ManifestTarget(name, "c", toolchain, unproven=draw(st.sampled_from(["", "no GPU"])), options=options)


SERVERS = st.builds(
    ServerFacts,
    st.lists(st.sampled_from(["7.5", "8.0", "8.6", "8.9", "9.0", "12.0"]), max_size=2).map(tuple),
    st.sampled_from([None, RELEASE, TritonRelease("26.01")]),
    st.sets(st.sampled_from(sorted(ALL_BACKENDS))).map(frozenset),
    st.dictionaries(st.sampled_from(["tensorrt", "tensorrt_rtx"]), VERSIONS),
    st.booleans(),
)
WISHES = st.lists(st.sampled_from(PRECISIONS), max_size=3, unique=True)


@given(st.lists(entries(), max_size=8).map(dict), SERVERS, WISHES, st.booleans(), st.randoms(use_true_random=False))
def test_laws(
    targets: dict[str, ManifestTarget],
    server: ServerFacts,
    precisions: list[Precision],
    allow_unproven: bool,  # noqa: FBT001 - given by Hypothesis
    shuffler: random.Random,
) -> None:
    answer = select(targets, server, precisions=precisions, allow_unproven=allow_unproven)
    shuffled = list(targets.items())
    shuffler.shuffle(shuffled)
    assert select(dict(shuffled), server, precisions=precisions, allow_unproven=allow_unproven) == answer
    if isinstance(answer, Refusal):
        assert set(answer.causes) == set(targets)
        assert all(name in answer.sentence for name in targets)
        return
    target, own = answer.target, answer.target.compute_capability
    assert {answer.name, *answer.passed_over} == set(targets)
    assert target.runtime in server.backends
    assert answer.entry.proven or allow_unproven
    if precisions:
        assert target.precision in precisions
    else:
        alike = [it for it in map(parse_target, targets) if it is not None and it.device == target.device]
        assert target.precision == min((it.precision for it in alike), key=PRECISIONS.index)
    if target.device != "cpu":
        assert server.compute_capabilities
    if own is not None and answer.entry.options.get("hardware_compatible") != "ampere_plus":
        assert set(server.compute_capabilities) == {own}
    elif own is not None:
        assert all(it != "7.5" for it in server.compute_capabilities) or set(server.compute_capabilities) == {own}
    if target.runtime == "tensorrt" and "version_compatible" not in answer.entry.options:
        assert answer.entry.toolchain["tensorrt"] == server.runtimes.tensorrt
    if target.runtime == "tensorrt" and "version_compatible" in answer.entry.options:
        assert server.version_compatible
