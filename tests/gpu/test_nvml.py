"""What NVML says of the GPUs of this machine, against the data of the project. Reads only: no MIG state is changed."""

import pytest

from control_plane.adapters.nvml import NvmlHost
from control_plane.mig import FULL, illegality, products
from control_plane.mig.host import HostGpu, NoDriverError

pytestmark = pytest.mark.gpu


@pytest.fixture
def gpus() -> tuple[HostGpu, ...]:
    try:
        return NvmlHost().gpus()
    except NoDriverError as error:
        pytest.skip(f"reading GPUs needs an NVIDIA driver: {error}")


def test_every_gpu_is_read_whole(gpus: tuple[HostGpu, ...]) -> None:
    for gpu in gpus:
        assert gpu.uuid.startswith("GPU-")
        assert float(gpu.product.compute_capability) >= 5
        assert illegality(gpu.product, gpu.geometry) == ""
        assert all(it.uuid.startswith("MIG-") for it in gpu.instances if it.uuid)


def test_profiles_and_placements_are_those_of_the_data(gpus: tuple[HostGpu, ...]) -> None:
    """By the product whose profiles have the same names; memory may differ by the board and the driver."""
    for gpu in gpus:
        if FULL in gpu.product.profiles:
            continue
        names = {key: it.name for key, it in gpu.product.profiles.items()}
        known = [
            it
            for it in products().values()
            if all(it.profiles[key].name == name for key, name in names.items() if key in it.profiles)
            and it.compute_capability == gpu.product.compute_capability
        ]
        assert known, f"no product of the data has the profiles of {gpu.name}: {names}"
        for key, profile in gpu.product.profiles.items():
            expected = known[0].profiles.get(key)
            if expected is not None:
                told = (profile.g, profile.memory_slices, profile.most, profile.starts, profile.multiprocessors)
                assert told == (
                    expected.g,
                    expected.memory_slices,
                    expected.most,
                    expected.starts,
                    expected.multiprocessors,
                ), (gpu.name, key)
                assert profile.memory_bytes == pytest.approx(expected.memory_bytes, rel=0.05)
