"""A version put together: files named after targets, a config each, and nothing private among them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from builders.artifacts import Artifact
from builders.assemble import _default
from builders.errors import ConfigError, SpecError
from builders.forms import EVIDENCE_FILENAME
from builders.manifest import Manifest
from builders.pbtxt import parse_config
from builders.pipeline import build, builder_of
from builders.plan import plan_build
from tests.tiny_packages import FP32, GRAPH, INT8, PLAIN, QUANTIZED, write_graph

ENGINE = "tensorrt-sm_75-fp32"
OPTIONAL_ENGINE = '[[targets]]\nruntime = "tensorrt"\ndevice = "sm_75"\nprecision = "fp32"\nrequired = false\n'
WITH_CONFIG = QUANTIZED + '[targets.config]\ninstance_group = [{ kind = "KIND_CPU", count = 3 }]\n'


def made(folder: Path, *targets: str) -> tuple[Path, Manifest]:
    write_graph(folder / "repository", *targets)
    result = build(builder_of(folder / "repository"), GRAPH)
    assert result.path is not None
    assert result.manifest is not None
    return result.path, result.manifest


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    return made(tmp_path_factory.mktemp("version"), WITH_CONFIG, PLAIN)


def test_files_are_named_after_targets_and_the_reference_set_stays_behind(version: tuple[Path, Manifest]) -> None:
    path, manifest = version
    assert sorted(each.name for each in path.iterdir()) == sorted(
        [
            f"{FP32}.onnx",
            f"{INT8}.onnx",
            "config.pbtxt",
            f"config.{INT8}.pbtxt",
            "manifest.json",
            "probes.json",
            "sbom.json",
        ]
    )
    assert set(manifest.files) == {each.name for each in path.iterdir()} - {"manifest.json"}


def test_every_target_has_a_config_that_names_its_file(version: tuple[Path, Manifest]) -> None:
    """The most precise target for ONNX Runtime on the CPU is the default one, wherever it stands in the spec."""
    path, manifest = version
    assert {name: target.config for name, target in manifest.targets.items()} == {
        FP32: "config.pbtxt",
        INT8: f"config.{INT8}.pbtxt",
    }
    for name, target in manifest.targets.items():
        text = (path / target.config).read_text()
        assert f'default_model_filename: "{name}.onnx"' in text
        assert (parse_config(text, path="").name, target.filename) == (GRAPH, f"{name}.onnx")
        assert ("count: 3" in text) == (name == INT8)
    assert (path.parent / "config.pbtxt").read_text() == (path / "config.pbtxt").read_text()


def test_the_manifest_says_how_each_target_was_made_and_how_close_it_is(version: tuple[Path, Manifest]) -> None:
    _, manifest = version
    fp32, int8 = manifest.targets[FP32], manifest.targets[INT8]
    assert (fp32.chosen, int8.chosen) == ("plain", "dynamic")
    assert fp32.proven
    assert fp32.parity is not None
    assert int8.parity is not None
    assert fp32.parity.max_abs_error == 0 < int8.parity.max_abs_error
    assert fp32.parity.items == int8.parity.items > 8
    assert set(fp32.toolchain) == {"onnx", "onnxruntime", "onnxslim"}
    assert manifest.sources.keys() == {"model.toml", "file/layer.onnx"}
    assert (manifest.command, manifest.licence) == (f"tritonfleet build {GRAPH}", "Apache-2.0")
    assert set(manifest.export) == {"key", "id"}


def test_the_bill_of_materials_names_package_version_and_files(version: tuple[Path, Manifest]) -> None:
    path, _ = version
    text = (path / "sbom.json").read_text()
    assert json.loads(text)["bomFormat"] == "CycloneDX"
    assert f"{FP32}.onnx" in text


def test_probes_are_answers_of_the_source(version: tuple[Path, Manifest]) -> None:
    path, _ = version
    probes = json.loads((path / "probes.json").read_text())
    assert [(it["inputs"][0]["name"], it["outputs"][0]["name"]) for it in probes] == [("x", "y")] * 2


@pytest.mark.parametrize(
    ("names", "unproven", "default"),
    [
        ([INT8, FP32], (), FP32),
        (["onnxruntime-cuda-fp32", INT8], (), INT8),
        ([INT8, FP32], (FP32,), INT8),
        (["tensorrt-sm_90-fp16", "onnxruntime-cuda-fp16", "onnxruntime-cuda-fp32"], (), "onnxruntime-cuda-fp32"),
        (["tensorrt-sm_90-fp16", "tensorrt-sm_80-fp16"], (), "tensorrt-sm_90-fp16"),
    ],
)
def test_the_default_runs_on_any_cpu_is_proven_and_is_the_most_precise(
    names: list[str], unproven: tuple[str, ...], default: str
) -> None:
    made = {name: Artifact("key", name, {}, {}, unproven="not run" if name in unproven else "") for name in names}
    assert _default(made) == default


def test_engines_of_two_tensorrt_versions_are_both_told_of(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    made(tmp_path, PLAIN, OPTIONAL_ENGINE)
    builder = builder_of(repository)
    step = next(it for it in plan_build(builder.observe(GRAPH)).targets if str(it.spec.target) == ENGINE)
    for version in ("10.3.0", "10.9.0"):
        (tmp_path / f"{ENGINE}.engine").write_text(f"an engine of {version}")
        files = builder.store.add_files(tmp_path, [f"{ENGINE}.engine"])
        builder.store.add(Artifact(step.key, ENGINE, {"tensorrt": version}, files, unproven="needs a GPU of sm_75"))
    result = build(builder, GRAPH)
    assert result.path is not None
    assert result.manifest is not None
    assert {name: it.toolchain["tensorrt"] for name, it in result.manifest.targets.items() if name != FP32} == {
        ENGINE: "10.9.0",
        f"{ENGINE}@10.3.0": "10.3.0",
    }
    bill = json.loads((result.path / "sbom.json").read_text())
    assert {it["version"] for it in bill["components"] if it["name"] == "tensorrt"} == {"10.3.0", "10.9.0"}
    assert result.manifest.toolchain["tensorrt"] == "10.3.0, 10.9.0"


def test_a_causal_language_model_that_nobody_could_run_says_so_in_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "site" / "onnxruntime_genai" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").touch()
    (models / "builder.py").write_text(
        "import sys\nfrom pathlib import Path\nout = Path(sys.argv[sys.argv.index('-o') + 1])\nout.mkdir()\n"
        "(out / 'genai_config.json').write_text('{}')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    folder = tmp_path / "repository" / "lm"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "model.safetensors").touch()
    source = 'kind = "causal_lm"\nprecision = "int4"\ncheckpoint = { path = "weights" }'
    (folder / "model.toml").write_text(f'name = "lm"\nsummary = "s"\nlicence = "MIT"\n[source]\n{source}\n')
    (folder / "config.pbtxt").write_text('name: "lm"\nbackend: "python"\n')
    manifest = build(builder_of(tmp_path / "repository"), "lm").manifest
    assert manifest is not None
    assert (dict(manifest.targets), manifest.unproven) == (
        {},
        "there is no golden set to hold it against its source",
    )


@pytest.mark.parametrize("content", ["not JSON", "[1]", '{"unproven": "a word of its own"}'])
def test_a_file_of_a_stage_says_nothing_of_proofs_whatever_its_name(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "repository" / "s"
    folder.mkdir(parents=True)
    (folder / "mine.json").write_text(content)
    (folder / "model.toml").write_text(
        'name = "s"\nsummary = "s"\nlicence = "MIT"\n[source]\nkind = "stage"\n'
        'stage = "ensembles.stages.token_budget:TokenBudget"\n[source.files]\n'
        f'"{EVIDENCE_FILENAME}" = {{ path = "mine.json" }}\n'
    )
    (folder / "config.pbtxt").write_text('name: "s"\nbackend: "python"\nmax_batch_size: 8\n')
    manifest = build(builder_of(tmp_path / "repository"), "s").manifest
    assert manifest is not None
    assert EVIDENCE_FILENAME in manifest.files
    assert manifest.unproven == ""


def test_a_config_that_triton_would_refuse_is_told_with_the_target(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"model.toml: the config generated for {FP32} is not one"):
        made(tmp_path, RESHAPED)
    assert not (tmp_path / "repository" / GRAPH / "1").exists()


BATCHES = PLAIN + "[targets.config]\ndynamic_batching = { preferred_batch_size = [64] }\n"
SHAPELESS = PLAIN + '[targets.config]\ninput = [{ name = "x", data_type = "TYPE_FP32", dims = [0] }]\n'
RESHAPED = PLAIN + '[targets.config]\ninput = [{ name = "x", reshape = { shape = [3] } }]\n'


@pytest.mark.parametrize(
    ("targets", "error", "said", "before"),
    [
        (BATCHES, SpecError, r"model.toml:\d+: .*preferred_batch_size 64 is above max_batch_size 8", "export"),
        (SHAPELESS, SpecError, r"model.toml:\d+: targets.0.config.input: input 'x' has dimension 0", "export"),
        (RESHAPED, ConfigError, f"the config generated for {FP32} is not one", "candidate"),
    ],
)
def test_a_wrong_override_is_told_before_anything_is_made(
    tmp_path: Path, targets: str, error: type[Exception], said: str, before: str
) -> None:
    """What the graph has no part in is told at once; the rest once it was exported."""
    package = write_graph(tmp_path / "repository", targets)
    told: list[str] = []
    builder = replace(builder_of(tmp_path / "repository"), report=lambda progress: told.append(progress.step))
    with pytest.raises(error, match=said):
        build(builder, package.name)
    assert ("export" in told) is (before != "export")
    assert not any(before in step for step in told)


SHAPES = '[[inputs]]\nname = "x"\nmin = [1, 8]\nopt = [4, 8]\nmax = [8, 8]\n'


def test_the_usual_shapes_warm_a_model_up_unless_the_package_says_otherwise(tmp_path: Path) -> None:
    path, _ = made(tmp_path / "usual", SHAPES + PLAIN)
    (sample,) = parse_config((path / "config.pbtxt").read_text(), path="").warmups
    assert (sample.batch_size, sample.inputs["x"].dims) == (4, (8,))
    own = PLAIN + "[targets.config]\nmodel_warmup = []\n"
    path, _ = made(tmp_path / "none", SHAPES + own)
    assert parse_config((path / "config.pbtxt").read_text(), path="").warmups == ()
