"""Cutting Kubernetes nodes: the label flow of the GPU operator, and whom it must not disturb."""

import json

import pytest

from control_plane.adapters.kubernetes_mig import KubernetesCutter, KubernetesError, MigConfigFailedError
from control_plane.errors import DeadlineExceededError
from control_plane.mig import Geometry, Placement, Product, products
from control_plane.mig.host import InstanceInUseError
from control_plane.mig.parted import LABEL, parted_configs
from tests.fakes.kubernetes import FakeKubernetes

H100, L4 = products()["h100-80gb"], products()["l4-24gb"]
HALVES = (Placement(0, "4g"), Placement(4, "3g"))
SMALL = (Placement(0, "1g"), Placement(1, "1g"), Placement(4, "3g"))
NODE: dict[str, list[tuple[Product, Geometry]]] = {"n1": [(H100, HALVES), (H100, SMALL), (H100, HALVES)]}


def cutter(api: FakeKubernetes) -> KubernetesCutter:
    seconds = iter(range(10_000))
    return KubernetesCutter(api.client(), clock=lambda: float(next(seconds)), sleep=api.turn)


def test_a_config_counts_profiles_by_their_names_for_the_gpus_that_are_alike() -> None:
    names, text = parted_configs({**NODE, "n2": NODE["n1"], "cpu": [(L4, ())]})
    assert names["n1"] == names["n2"] != names["cpu"]
    config = json.loads(text)
    assert config["version"] == "v1"
    assert config["mig-configs"][names["n1"]] == [
        {"devices": [1], "mig-enabled": True, "mig-devices": {"1g.10gb": 2, "3g.40gb": 1}},
        {"devices": [0, 2], "mig-enabled": True, "mig-devices": {"3g.40gb": 1, "4g.40gb": 1}},
    ]
    assert parted_configs({"n1": NODE["n1"]})[1] == parted_configs({"n1": list(NODE["n1"])})[1]


def test_a_node_is_labelled_once_its_config_is_there_and_followed_to_the_end() -> None:
    api = FakeKubernetes("n1")
    names = cutter(api).cut(NODE)
    assert api.nodes["n1"][LABEL] == names["n1"]
    before = len(api.calls)
    assert cutter(api).cut(NODE) == names
    assert all(call.startswith("GET") for call in api.calls[before:]), "what is so already is left alone"


def test_a_node_whose_pods_use_gpus_is_refused_and_nothing_is_changed_unless_they_were_drained() -> None:
    api = FakeKubernetes("n1")
    api.run_pod("n1", "web")
    api.run_pod("n1", "llm", **{"nvidia_com__mig-3g_40gb": "1"})
    with pytest.raises(InstanceInUseError, match="default/llm"):
        cutter(api).cut(NODE)
    assert (api.nodes["n1"], api.config) == ({}, None)
    cutter(api).cut(NODE, drained=frozenset({"n1"}))


def test_another_writer_of_the_config_is_not_lost_against() -> None:
    api = FakeKubernetes("n1")
    api.conflicts = 2
    cutter(api).cut(NODE)
    assert api.config is not None
    assert "tritonfleet-" in api.config["data"]["config.yaml"]
    api.conflicts = 9
    with pytest.raises(KubernetesError, match="written by others"):
        cutter(api).cut({"n1": [(H100, SMALL)]})


def test_what_went_wrong_is_told_by_its_cause() -> None:
    api = FakeKubernetes("n1")
    api.outcome = "failed"
    with pytest.raises(MigConfigFailedError, match="its log says why"):
        cutter(api).cut(NODE)
    late = FakeKubernetes("n1")
    late.outcome = "rebooting"
    with pytest.raises(DeadlineExceededError, match="still rebooting"):
        cutter(late).cut(NODE, deadline_s=5)
    with pytest.raises(KubernetesError, match='404: nodes "n9" not found'):
        cutter(api).cut({"n9": NODE["n1"]})
