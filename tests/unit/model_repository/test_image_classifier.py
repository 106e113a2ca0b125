"""The package `image_classifier`: its network is the same each time, and tells images apart."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from builders.spec import read_spec

PACKAGE = Path(__file__).parents[3] / "model_repository" / "image_classifier"


@pytest.fixture(scope="module")
def package() -> dict[str, Any]:
    return runpy.run_path(str(PACKAGE / "network.py"))


def test_gives_the_same_network_each_time_and_leaves_randomness_alone(package: dict[str, Any]) -> None:
    torch.manual_seed(1)
    first, examples, outputs = package["make"]()
    torch.manual_seed(2)
    drawn = torch.get_rng_state()
    second, again, _ = package["make"]()
    assert torch.equal(torch.get_rng_state(), drawn)
    assert outputs == ("logits",)
    assert torch.equal(examples["pixel_values"], again["pixel_values"])
    tensors = first.state_dict()
    assert tensors.keys() == second.state_dict().keys()
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in tensors.items())


@torch.no_grad()
def test_tells_images_apart_by_more_than_an_artifact_may_be_off(package: dict[str, Any]) -> None:
    network, examples, _ = package["make"]()
    pixels = examples["pixel_values"]
    logits = network(pixels)
    assert logits.shape == (len(pixels), package["CLASSES"])
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    cosine = float(torch.nn.functional.cosine_similarity(logits[0], logits[1], dim=0))
    tolerance = read_spec(PACKAGE).tolerance
    assert tolerance["fp16"].min_cosine is not None
    assert cosine < tolerance["fp16"].min_cosine
    # Each image is answered for itself: the batch around it does not matter.
    assert torch.allclose(network(pixels.flip(0)).flip(0), logits, atol=1e-4)


def test_the_specs_range_is_the_networks_input(package: dict[str, Any]) -> None:
    spec = read_spec(PACKAGE)
    _, examples, _ = package["make"]()
    (given,) = spec.inputs
    assert given.name in examples
    for shape in (given.min, given.opt, given.max):
        assert shape[1:] == list(examples[given.name].shape[1:])
    assert given.max[0] == spec.max_batch_size
