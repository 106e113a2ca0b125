"""The packages beside the encoder, built as a user builds them and served by a real Triton: images and injections.

And engines for four architectures from one command, on a machine that may have no GPU.
"""

import asyncio
import json
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest

from builders.manifest import read_manifest
from control_plane.bootstrap import running_control_plane
from control_plane.settings import Settings
from tests.command_line import run_here
from tests.conftest import ROOT
from tests.tiny_packages import write_graph

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_120")
RTX = """\
[[targets]]
runtime = "tensorrt_rtx"
device = "{device}"
precision = "fp16"
required = false
"""
RANGES = '[[inputs]]\nname = "x"\nmin = [1, 8]\nopt = [4, 8]\nmax = [8, 8]\n'


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both packages with what they require; candidates are timed only briefly."""
    root = tmp_path_factory.mktemp("packages") / "model_repository"
    for name in ("image_classifier", "prompt_injection"):
        shutil.copytree(ROOT / "model_repository" / name, root / name, ignore=shutil.ignore_patterns("[0-9]*"))
        spec = root / name / "model.toml"
        spec.write_text(spec.read_text().replace("[measure]\n", "[measure]\nseconds = 0.1\n"))
    ended = run_here("build", "-r", str(root), "--required", "--json")
    assert ended.code == 0, ended.err
    assert {it["package"]: it["version"] for it in ended.data} == {"image_classifier": 1, "prompt_injection": 1}
    return root


def test_a_second_build_has_nothing_to_do(repository: Path) -> None:
    again = run_here("build", "-r", str(repository), "--required", "--json")
    assert [it["made"] for it in again.data] == [[], []]


def test_both_are_proven_and_leave_their_data_behind(repository: Path) -> None:
    for name in ("image_classifier", "prompt_injection"):
        manifest = read_manifest(repository / name / "1")
        assert manifest is not None
        (target,) = manifest.targets.values()
        assert target.unproven == ""
        assert target.parity is not None
        assert target.parity.min_cosine > 0.9999
        left = {path.name for path in (repository / name / "1").iterdir()}
        assert not left & {"dataset.jsonl", "golden.jsonl", "train.py", "network.py"}


def test_both_serve_their_public_probes_on_a_real_triton(repository: Path, tmp_path: Path) -> None:
    settings = Settings(port=0, model_repository=repository, state_path=tmp_path / "state.db")

    async def scenario() -> None:
        async with (
            running_control_plane(settings) as running,
            httpx.AsyncClient(base_url=running.url, timeout=100, trust_env=False) as rest,
        ):
            triton = f"http://{running.fleet.servers()[0].server.endpoints.http}/v2/models"
            for model in ("image_classifier", "prompt_injection"):
                response = await rest.post("/v1/deployments?wait=60", json={"name": model, "model": model})
                assert response.json()["status"]["state"] == "serving", response.text
                probes = json.loads((repository / model / "1" / "probes.json").read_text())
                assert probes
                for probe in probes:
                    answer = await rest.post(f"{triton}/{model}/infer", json={"inputs": probe["inputs"]})
                    assert answer.status_code == 200, answer.text
                    given = {output["name"]: output["data"] for output in answer.json()["outputs"]}
                    for expected in probe["outputs"]:
                        np.testing.assert_allclose(given[expected["name"]], expected["data"], atol=1e-3)

    asyncio.run(scenario())


def test_one_command_compiles_for_four_architectures_without_a_gpu(tmp_path: Path) -> None:
    package = write_graph(tmp_path, *(RTX.format(device=device) for device in ARCHITECTURES))
    spec = package / "model.toml"
    spec.write_text(spec.read_text().replace("[[targets]]", RANGES + "[[targets]]", 1))
    ended = run_here("build", "-r", str(tmp_path), "--json")
    assert ended.code == 0, ended.err
    manifest = read_manifest(package / "1")
    assert manifest is not None
    engines = {name: (package / "1" / target.filename).read_bytes() for name, target in manifest.targets.items()}
    assert set(engines) == {f"tensorrt_rtx-{device}-fp16" for device in ARCHITECTURES}
    assert len(set(engines.values())) == len(ARCHITECTURES)
    assert min(map(len, engines.values())) > 0
