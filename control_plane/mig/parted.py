"""A node's geometries in the words of mig-parted, by which NVIDIA's GPU operator cuts Kubernetes nodes. Pure.

A mig-parted config says how many of each profile a GPU has, and not where: the driver places them. So what a node has
in the end is read back from it, and only the mix is what was asked for. JSON is YAML, so the text is JSON: the same
geometries, the same bytes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from control_plane.mig.geometry import Geometry, mix_of
from control_plane.mig.products import Product

LABEL = "nvidia.com/mig.config"
STATE_LABEL = "nvidia.com/mig.config.state"
"""What mig-manager says of a config that it was told by the label: pending, rebooting, success or failed."""


def parted_configs(nodes: Mapping[str, Sequence[tuple[Product, Geometry]]]) -> tuple[dict[str, str], str]:
    """Return the config's name for each node, and the text that defines all of them (`config.yaml`).

    GPUs are in the driver's order. A name follows from what it says, so nodes that are cut alike share one, and a
    change is another name.
    """
    names: dict[str, str] = {}
    configs: dict[str, Any] = {}
    for node, gpus in sorted(nodes.items()):
        config = _config(gpus)
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
        names[node] = f"tritonfleet-{digest[:12]}"
        configs[names[node]] = config
    return names, json.dumps({"version": "v1", "mig-configs": configs}, indent=2, sort_keys=True) + "\n"


def _config(gpus: Sequence[tuple[Product, Geometry]]) -> list[dict[str, Any]]:
    alike: dict[str, dict[str, Any]] = {}
    for index, (product, geometry) in enumerate(gpus):
        if not product.has_mig:
            continue
        devices = {product.profiles[key].name: count for key, count in mix_of(geometry)}
        entry: dict[str, Any] = {"mig-enabled": True, "mig-devices": dict(sorted(devices.items()))}
        key = json.dumps(entry, sort_keys=True)
        alike.setdefault(key, {"devices": [], **entry})["devices"].append(index)
    return [alike[key] for key in sorted(alike)]
