"""model.toml: what is read, and what each mistake is told: file, line, field, and what may have been meant."""

from pathlib import Path

import pytest

from builders.errors import SourceError, SpecError
from builders.spec import DEFAULT_TOLERANCES, HuggingFaceSource, StageSource, Tolerance, find_packages, read_spec
from builders.targets import Target

ENCODER = """
name = "m"
summary = "s"
licence = "Apache-2.0"
[source]
kind = "huggingface_encoder"
checkpoint = { distribution = "d", path = "p" }
[tolerance.fp32]
min_cosine = 0.999
[[targets]]
runtime = "onnxruntime"
device = "cpu"
precision = "fp32"
[[targets]]
runtime = "tensorrt"
device = "sm_90"
precision = "fp8"
required = false
"""
STAGE = """
name = "m"
summary = "s"
licence = "Apache-2.0"
[source]
kind = "stage"
stage = "a.b:C"
[source.files]
"""
SKLEARN = """
name = "m"
summary = "s"
licence = "Apache-2.0"
[source]
kind = "sklearn_training"
script = "train.py:train"
dataset = "dataset.jsonl"
encoder = { path = "encoder" }
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    return tmp_path / "m"


def test_reads_a_spec(package: Path) -> None:
    (package / "model.toml").write_text(ENCODER)
    spec = read_spec(package)
    assert isinstance(spec.source, HuggingFaceSource)
    assert [(str(each.target), each.required) for each in spec.graph_targets] == [
        ("onnxruntime-cpu-fp32", True),
        ("tensorrt-sm_90-fp8", False),
    ]
    fp32, fp8 = spec.graph_targets
    assert (spec.tolerance_of(fp32), spec.tolerance_of(fp8)) == (Tolerance(min_cosine=0.999), DEFAULT_TOLERANCES["fp8"])
    assert (spec.golden, spec.max_batch_size, spec.measure.batch_sizes) == (None, 0, [1, 8, 32])


def test_a_graph_without_targets_is_built_for_the_cpu(package: Path) -> None:
    (package / "model.toml").write_text(ENCODER[: ENCODER.index("[[targets]]")])
    assert [each.target for each in read_spec(package).graph_targets] == [Target("onnxruntime", "cpu", "fp32")]
    (package / "model.toml").write_text(STAGE)
    assert read_spec(package).graph_targets == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "not TOML"),
        (
            ENCODER.replace("licence", "license"),
            r"model.toml:4: license: there is no such field; did you mean 'licence'",
        ),
        (ENCODER.replace("huggingface_encoder", "pickle"), "model.toml:5: source: Input tag 'pickle'"),
        (ENCODER.replace("checkpoint", "checkpiont"), "model.toml:7: source.checkpiont: .*did you mean 'checkpoint'"),
        (ENCODER.replace("0.999", "1.5"), r"model.toml:9: tolerance\.fp32\.min_cosine: .*less than or equal to 1"),
        (ENCODER.replace("0.999", '"high"'), "valid number"),
        (ENCODER.replace("[tolerance.fp32]", "[tolerance.fp12]"), r"model.toml:8: tolerance\.fp12: Input should be"),
        (ENCODER.replace('name = "m"', 'name = "other"'), "model.toml:2: name is 'other', but the folder is 'm'"),
        (ENCODER + '[golden]\nfile = "../../secrets.jsonl"', "model.toml:20: golden.file: String should match pattern"),
        (ENCODER.replace('"sm_90"', '"sm_86"'), r"model.toml:14: targets\.1: sm_86 has no fp8; it begins with sm_89"),
        (ENCODER.replace('"cpu"', '"sm_80"'), r"targets\.0: onnxruntime takes the devices cpu and cuda, not sm_80"),
        (ENCODER.replace('"sm_90"', '"cpu"').replace('"fp8"', '"fp32"'), "tensorrt builds for one GPU architecture"),
        (ENCODER.replace('"tensorrt"', '"tensorrt_rtx"'), "tensorrt_rtx compiles for compute capability .* not 9.0"),
        (ENCODER + "hardware_compatible = 'all'", r"targets\.1\.hardware_compatible: Input should be 'none'"),
        (ENCODER.replace("required = false", 'device = "sm_90"'), "not TOML"),
        (ENCODER + ENCODER[ENCODER.index("[[targets]]") :], "onnxruntime-cpu-fp32, tensorrt-sm_90-fp8 given twice"),
        (
            ENCODER + '[[inputs]]\nname = "x"\nmin = [1]\nopt = [4]\nmax = [2]',
            r"model.toml:19: inputs\.0: every dimension",
        ),
        (
            STAGE + '"model.py" = { distribution = "d", path = "p" }',
            "model.toml:9: .*a version has a 'model.py' of its own",
        ),
        (STAGE + "[config]\nmax_batch_size = 3", "config: not for a package of kind 'stage'"),
        (STAGE + "[calibration]", "calibration: not for a package of kind 'stage'"),
        (ENCODER + "[calibration]\nfile = '/x'", r"model.toml:20: calibration\.file: String should match pattern"),
        (SKLEARN + "[calibration]", "a 'sklearn_training' package calibrates with the rows that its script holds out"),
        (
            ENCODER + "[config]\nmax_batch_size = 3\nmax_batchsize = 3",
            r"model.toml:21: config: ModelConfig has no field max_batchsize; did you mean max_batch_size\?",
        ),
        (ENCODER + "[config]\nmax_batch_size = 'many'", r"model.toml:20: config: .*max_batch_size"),
        (
            ENCODER + "[targets.config]\ndynamic_batching = { preferred = [4] }",
            r"model.toml:20: targets\.1\.config: ModelConfig has no field dynamic_batching\.preferred",
        ),
        (
            ENCODER.replace("required = false", 'candidates = ["qdq", "qqd+slim"]'),
            r"targets\.1\.candidates: tensorrt-sm_90-fp8 has no candidate 'qqd\+slim'; did you mean 'qdq",
        ),
        (ENCODER + "[config]\nmax_batch_size = 2026-01-01", r"model.toml:20: config: "),
        (
            ENCODER + "[config]\nmax_batch_size = 8\ndynamic_batching = { preferred_batch_size = [4, 16] }",
            r"model.toml:21: config\.dynamic_batching: preferred_batch_size 16 is above max_batch_size 8",
        ),
        (
            ENCODER + "[targets.config]\nmax_batch_size = 8\n[config]\ndynamic_batching.preferred_batch_size = [9]",
            r"model.toml:22: config\.dynamic_batching: preferred_batch_size 9 is above max_batch_size 0",
        ),
        (
            ENCODER + "[config]\nmax_batch_size = -1",
            r"model.toml:20: config\.max_batch_size: max_batch_size is -1; it must",
        ),
        (
            ENCODER + "[config]\nmax_batch_size = 8\n[targets.config]\nversion_policy.latest.num_versions = 0",
            r"model.toml:22: targets\.1\.config\.version_policy: version_policy: latest needs num_versions",
        ),
        (
            ENCODER + "[targets.config]\ninstance_group = [{ kind = 'KIND_CPU', gpus = [0] }]",
            r"model.toml:20: targets\.1\.config\.instance_group: .*gpus",
        ),
        (
            ENCODER + '[config]\nname = "n"',
            r"model.toml:20: config\.name: name: \"n\" differs from the folder's name 'm'",
        ),
        (
            ENCODER + "[config]\nresponse_cache.enable = true\nmodel_transaction_policy.decoupled = true",
            r"model.toml:21: config\.model_transaction_policy: response_cache cannot be enabled for a decoupled model",
        ),
        (
            ENCODER + "[[targets.config.input]]\nname = 'a'\ndims = [0]",
            r"model.toml:19: targets\.1\.config\.input: input 'a' has dimension 0",
        ),
        (ENCODER.replace('name = "m"', 'name = "../m"'), "model.toml:2: name: String should match pattern"),
    ],
)
def test_each_mistake_is_told_with_file_line_and_field(package: Path, text: str, said: str) -> None:
    (package / "model.toml").write_text(text)
    with pytest.raises(SpecError, match=said) as raised:
        read_spec(package)
    assert str(package / "model.toml") in str(raised.value)


def test_what_depends_on_the_graph_is_judged_with_it(package: Path) -> None:
    (package / "model.toml").write_text(f"{ENCODER}[config]\ninput = [{{ name = 'a', reshape = {{ shape = [3] }} }}]\n")
    assert read_spec(package).config["input"] == [{"name": "a", "reshape": {"shape": [3]}}]


def test_every_mistake_is_told_at_once(package: Path) -> None:
    (package / "model.toml").write_text(ENCODER.replace("licence", "license").replace('"fp8"', '"fp80"'))
    with pytest.raises(SpecError) as raised:
        read_spec(package)
    assert str(raised.value).count(str(package)) == 3


def test_missing_and_undecodable_files(package: Path) -> None:
    with pytest.raises(SourceError, match=r"model\.toml: no such file"):
        read_spec(package)
    (package / "model.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SourceError, match="cannot be read"):
        read_spec(package)


def test_this_projects_packages_are_sound() -> None:
    repository = Path(__file__).parents[3] / "model_repository"
    specs = {name: read_spec(repository / name) for name in find_packages(repository)}
    assert {"sentence_encoder", "text_tokenizer", "text_guard", "text_embedding"} <= set(specs)
    assert isinstance(specs["text_guard"].source, StageSource)


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such folder"):
        find_packages(tmp_path / "none")
