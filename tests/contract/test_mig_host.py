"""Cutting GPUs through the NVML adapter, on a library in Python that answers and refuses as the driver's does."""

import re
from collections.abc import Iterator

import pynvml
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.adapters.nvml import NvmlHost
from control_plane.mig import FULL, Placement, illegality, product_named
from control_plane.mig.host import DriverError, InstanceInUseError, MigHost, NoInstanceError, PlacementTakenError
from control_plane.mig.products import NVML_COMPUTE_PROFILES, NVML_PROFILES
from control_plane.mig.simulated import SimulatedNvml, installed

H100 = product_named("h100-80gb")
PLACEMENTS = [Placement(start, it.key) for it in H100.profiles.values() for start in it.starts]


@pytest.fixture
def library() -> Iterator[SimulatedNvml]:
    made = SimulatedNvml({"h100-80gb": 1, "a100-80gb": 1, "l4-24gb": 1})
    with installed(made):
        yield made


@pytest.fixture
def host(library: SimulatedNvml) -> MigHost:
    library.gpus[0].mig = library.gpus[0].pending = True
    return NvmlHost()


def test_the_driver_tells_what_a_gpu_is(host: MigHost) -> None:
    h100, a100, l4 = host.gpus()
    for gpu, name in ((h100, "h100-80gb"), (a100, "a100-80gb")):
        known = product_named(name)
        assert dict(gpu.product.profiles) == dict(known.profiles)
        assert (gpu.product.compute_capability, gpu.product.memory_slices) == (known.compute_capability, 8)
    assert (h100.mig, a100.mig, l4.mig) == (True, False, False)
    assert list(l4.product.profiles) == [FULL]
    assert l4.product.profiles[FULL].memory_bytes == product_named("l4-24gb").profiles[FULL].memory_bytes


def test_the_numbers_of_profiles_are_those_of_the_binding() -> None:
    words = {"GFX": "+gfx", "NO_ME": "-me", "ALL_ME": "+me.all", "REV1": "+me", "REV2": ".2x", "": ""}
    told = {}
    for name, number in vars(pynvml).items():
        if found := re.fullmatch(r"NVML_GPU_INSTANCE_PROFILE_(\d)_SLICE_?(\w*)", name):
            told[number] = f"{found[1]}g{words[found[2]]}"
    assert {number: key for number, key in told.items() if number in NVML_PROFILES} == NVML_PROFILES
    for slices, number in NVML_COMPUTE_PROFILES.items():
        assert getattr(pynvml, f"NVML_COMPUTE_INSTANCE_PROFILE_{slices}_SLICE") == number


def test_an_instance_is_created_where_it_is_to_be_found_by_its_uuid_and_destroyed(host: MigHost) -> None:
    gpu = host.gpus()[0].uuid
    made = host.create(gpu, Placement(4, "3g"))
    other = host.create(gpu, Placement(0, "1g"))
    assert made.uuid.startswith("MIG-")
    assert made.uuid != other.uuid
    seen = host.gpus()[0]
    assert seen.geometry == (Placement(0, "1g"), Placement(4, "3g"))
    assert {it.uuid for it in seen.instances} == {made.uuid, other.uuid}
    host.destroy(gpu, made.id)
    assert host.gpus()[0].geometry == (Placement(0, "1g"),)
    with pytest.raises(NoInstanceError):
        host.destroy(gpu, made.id)
    with pytest.raises(NoInstanceError, match="There is no GPU GPU-x"):
        host.destroy("GPU-x", 1)


def test_a_placement_that_is_taken_is_refused_and_nothing_changes(host: MigHost) -> None:
    gpu = host.gpus()[0].uuid
    host.create(gpu, Placement(0, "4g"))
    with pytest.raises(PlacementTakenError, match="could not create 2g at 2 on GPU-"):
        host.create(gpu, Placement(2, "2g"))
    with pytest.raises(PlacementTakenError, match="has no profile 5g"):
        host.create(gpu, Placement(0, "5g"))
    with pytest.raises(PlacementTakenError, match="3g cannot begin at memory slice 1"):
        host.create(gpu, Placement(1, "3g"))
    assert host.gpus()[0].geometry == (Placement(0, "4g"),)


def test_an_instance_with_a_process_is_in_use(host: MigHost, library: SimulatedNvml) -> None:
    gpu = host.gpus()[0].uuid
    made = host.create(gpu, Placement(0, "2g"))
    library.gpus[0].instances[made.id].processes.add(4711)
    assert host.gpus()[0].instances[0].processes == (4711,)
    with pytest.raises(InstanceInUseError, match="could not destroy instance"):
        host.destroy(gpu, made.id)
    assert host.gpus()[0].geometry == (Placement(0, "2g"),)
    library.gpus[0].instances[made.id].processes.clear()
    host.destroy(gpu, made.id)


def test_half_an_instance_is_taken_away_again(host: MigHost, library: SimulatedNvml) -> None:
    library.refuse["nvmlGpuInstanceCreateComputeInstance"] = 999
    with pytest.raises(DriverError):
        host.create(host.gpus()[0].uuid, Placement(0, "2g"))
    assert library.gpus[0].instances == {}


def test_the_mode_changes_at_once_on_hopper_and_after_a_reset_on_ampere(host: MigHost, library: SimulatedNvml) -> None:
    h100, a100, _ = host.gpus()
    assert host.set_mig(h100.uuid, enabled=False) is True
    assert host.set_mig(a100.uuid, enabled=True) is False
    assert (host.gpus()[1].mig, host.gpus()[1].mig_pending) == (False, True)
    library.gpus[1].reset()
    assert host.gpus()[1].mig
    library.gpus[0].processes.add(1)
    with pytest.raises(InstanceInUseError):
        host.set_mig(h100.uuid, enabled=True)


@given(st.lists(st.one_of(st.sampled_from(PLACEMENTS), st.integers(0, 7)), max_size=12))
@settings(deadline=None, max_examples=60)
def test_whatever_is_tried_the_geometry_is_legal_and_only_what_is_illegal_is_refused(
    steps: list[Placement | int],
) -> None:
    library = SimulatedNvml({"h100-80gb": 1})
    library.gpus[0].mig = True
    with installed(library):
        host = NvmlHost()
        for step in steps:
            gpu = host.gpus()[0]
            if isinstance(step, int):
                if gpu.instances:
                    host.destroy(gpu.uuid, gpu.instances[step % len(gpu.instances)].id)
                continue
            legal = not illegality(gpu.product, [*gpu.geometry, step])
            try:
                host.create(gpu.uuid, step)
            except PlacementTakenError:
                assert not legal
            else:
                assert legal
            assert illegality(gpu.product, host.gpus()[0].geometry) == ""
