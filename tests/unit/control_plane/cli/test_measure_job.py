"""What is measured, found in the repository: version, config of a target, members, requests; and the device's name."""

import json
from pathlib import Path

import pytest

from builders.manifest import Manifest, ManifestTarget
from control_plane.cli.measure_job import RunningTriton, find_job, observe_device
from control_plane.errors import LoadFailedError
from tests.small_models import CONFIG, ensemble, multiplier

PROBE = '[{"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [3]}]}]'


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for version in (1, 2):
        multiplier(tmp_path, "m", 2.0, version)
    ensemble(tmp_path, "over", "m")
    return tmp_path


def test_the_newest_version_is_measured_with_its_own_config(repository: Path) -> None:
    own = CONFIG.format(name="m").replace('"python"', '"onnxruntime"')
    own += 'default_model_filename: "onnxruntime-cpu-fp32.onnx"\n'
    (repository / "m" / "2" / "config.pbtxt").write_text(own)
    job = find_job(repository, "m", "", None, {"X": (1,)})
    assert (job.model.name, job.version, job.target, job.max_batch_size, job.is_ensemble) == (
        "m",
        2,
        "onnxruntime-cpu-fp32",
        8,
        False,
    )
    config = json.loads(job.model.config)
    assert config["version_policy"] == {"specific": {"versions": ["2"]}}
    assert config["default_model_filename"] == "onnxruntime-cpu-fp32.onnx"
    assert (job.model.items, job.sent, job.model.shapes) == ((), "generated", {"X": (1,)})


def test_a_version_and_a_target_can_be_asked_for(repository: Path) -> None:
    other = CONFIG.format(name="m").replace('"python"', '"onnxruntime"') + 'default_model_filename: "other.onnx"\n'
    other = other.replace("max_batch_size: 8", "max_batch_size: 2")
    version = repository / "m" / "1"
    (version / "config.onnxruntime-cpu-int8.pbtxt").write_text(other)
    targets = {
        "onnxruntime-cpu-int8": ManifestTarget("other.onnx", "config.onnxruntime-cpu-int8.pbtxt", {}),
        "onnxruntime-cpu-fp32": ManifestTarget("m.onnx", "config.pbtxt", {}),
    }
    (version / "manifest.json").write_text(Manifest("m", 1, "key", "MIT", "", targets=targets).to_json())
    default = other.replace("other.onnx", "m.onnx").replace("max_batch_size: 2", "max_batch_size: 8")
    (version / "config.pbtxt").write_text(default)
    job = find_job(repository, "m:1", "onnxruntime-cpu-int8", None, {})
    assert (job.version, job.target) == (1, "onnxruntime-cpu-int8")
    assert json.loads(job.model.config)["default_model_filename"] == "other.onnx"
    assert job.max_batch_size == 2, "that of the target's config"
    assert find_job(repository, "m:1", "onnxruntime-cpu-fp32", None, {}).target == "onnxruntime-cpu-fp32", "the default"
    with pytest.raises(
        LoadFailedError, match="has no target int9; there are: onnxruntime-cpu-fp32, onnxruntime-cpu-int8"
    ):
        find_job(repository, "m:1", "int9", None, {})


def test_probes_of_the_version_are_sent_unless_others_are_given(repository: Path) -> None:
    (repository / "m" / "2" / "probes.json").write_text(PROBE)
    job = find_job(repository, "m", "", None, {})
    assert (job.sent, [it["X"].tolist() for it in job.model.items]) == ("from the version's probes", [[3.0]])
    given = repository / "mine.json"
    given.write_text(PROBE.replace("[3]", "[4]"))
    mine = find_job(repository, "m", "", given, {})
    assert (mine.sent, [it["X"].tolist() for it in mine.model.items]) == ("from mine.json", [[4.0]])
    (repository / "m" / "2" / "probes.json").write_text("[]")
    assert find_job(repository, "m", "", None, {}).sent == "generated"


def test_an_ensemble_brings_its_members_pinned(repository: Path) -> None:
    job = find_job(repository, "over", "", None, {})
    assert job.is_ensemble
    ((name, config),) = job.model.members
    assert (name, json.loads(config)["version_policy"]) == ("m", {"specific": {"versions": ["2"]}})


def test_the_device_of_another_machine_is_not_this_ones() -> None:
    here = observe_device(None, on_gpu=False)
    assert (here.kind, here.cores > 0, here.name != "") == ("cpu", True, True)
    assert observe_device(RunningTriton("127.0.0.1:8001"), on_gpu=False) == here
    there = observe_device(RunningTriton("gpu-7.example:8001"), on_gpu=True)
    assert (there.kind, there.name, there.slug) == (
        "gpu",
        "device of gpu-7.example:8001",
        "device-of-gpu-7.example-8001",
    )
