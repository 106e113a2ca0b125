"""What is found on a machine: runtimes under any name that they are installed by."""

from importlib.metadata import Distribution, MetadataPathFinder
from pathlib import Path

import pytest

from builders.host import ABSENT, observe_host, runtime_version
from builders.targets import DISTRIBUTIONS, RUNTIMES, Runtime


def installed(folder: Path, name: str, version: str) -> Path:
    """Lay a distribution into a folder, as pip does."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


@pytest.mark.parametrize(
    ("runtime", "name"),
    [
        ("tensorrt", "tensorrt"),
        ("tensorrt", "tensorrt_cu12"),
        ("tensorrt", "tensorrt_cu13"),
        ("tensorrt", "tensorrt_cu13_bindings"),
        ("tensorrt_rtx", "tensorrt_rtx_cu13"),
        ("tensorrt_rtx", "tensorrt_rtx_cu12_bindings"),
        ("onnxruntime", "onnxruntime_gpu"),
    ],
)
def test_a_runtime_is_found_under_any_of_its_names(runtime: Runtime, name: str, tmp_path: Path) -> None:
    path = [str(installed(tmp_path, name, "9.8.7"))]

    def find(asked: str) -> str:
        context = MetadataPathFinder.Context(name=asked, path=path)
        found = next(iter(MetadataPathFinder.find_distributions(context)), None)
        assert found is None or isinstance(found, Distribution)
        return ABSENT if found is None else found.version

    assert runtime_version(runtime, find) == "9.8.7"
    others = [other for other in RUNTIMES if other != runtime]
    assert [runtime_version(other, find) for other in others] == [ABSENT, ABSENT]


def test_what_is_observed_has_the_names_that_it_is_installed_by() -> None:
    distributions = observe_host().distributions
    known = {name for names in DISTRIBUTIONS.values() for name in names}
    assert set(distributions) <= known
    assert runtime_version("onnxruntime") in distributions.values()
