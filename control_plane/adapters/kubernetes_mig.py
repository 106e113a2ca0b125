"""Cutting the GPUs of Kubernetes nodes through NVIDIA's GPU operator: a generated mig-parted config and a node label.

mig-manager applies the config that the label names, and evicts no pod for it: a node whose pods still use GPUs is
refused here, unless the caller says that it drained them. What came of it is read from the label that mig-manager
sets, to a deadline. Speaks to the API server by its REST API.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from control_plane.errors import DeadlineExceededError, PermanentError, RetryableError, ServerUnreachableError
from control_plane.mig.geometry import Geometry
from control_plane.mig.host import GpuError, InstanceInUseError
from control_plane.mig.parted import LABEL, STATE_LABEL, parted_configs
from control_plane.mig.products import Product

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, and the certificate of the API server's authority."""
_MERGE = {"Content-Type": "application/merge-patch+json"}
_GPU_RESOURCES = ("nvidia.com/gpu", "nvidia.com/mig-")
_CONFLICT, _NOT_FOUND = 409, 404
_TRIES = 5
_POLL_S = 1.0


class KubernetesError(RetryableError, GpuError):
    """The API server refused a call. `str()` has its own words."""


class MigConfigFailedError(PermanentError, GpuError):
    """mig-manager could not apply a config."""


@dataclass(frozen=True, slots=True)
class ConfigMapName:
    """Where the GPU operator was told to read mig-parted's configs from (`migManager.config.name`)."""

    namespace: str = "gpu-operator"
    name: str = "tritonfleet-mig-config"


class KubernetesCutter:
    """Cuts nodes. Calls block: for a thread."""

    def __init__(
        self,
        client: httpx.Client,
        where: ConfigMapName | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client, self._where = client, where or ConfigMapName()
        self._clock, self._sleep = clock, sleep

    @classmethod
    def in_cluster(cls, host: str, port: str, account: Path = SERVICE_ACCOUNT) -> "KubernetesCutter":
        """Return one that speaks as the pod's service account, to KUBERNETES_SERVICE_HOST and _PORT."""
        token = (account / "token").read_text(encoding="utf-8").strip()
        headers = {"Authorization": f"Bearer {token}"}
        return cls(httpx.Client(base_url=f"https://{host}:{port}", headers=headers, verify=str(account / "ca.crt")))

    def cut(
        self,
        nodes: Mapping[str, Sequence[tuple[Product, Geometry]]],
        *,
        drained: frozenset[str] = frozenset(),
        deadline_s: float = 600.0,
    ) -> dict[str, str]:
        """Have nodes cut like this, and return the config's name for each once mig-manager says that it is done.

        `nodes` are all that are cut by us: the ConfigMap is written whole, and holds the configs of no others.
        Raises InstanceInUseError with the pods that use GPUs of a node which is not said to be drained (nothing is
        changed then), MigConfigFailedError, DeadlineExceededError, ServerUnreachableError, KubernetesError.
        """
        names, text = parted_configs(nodes)
        waiting = [node for node in sorted(nodes) if self._labels(node).get(LABEL) != names[node]]
        for node in waiting:
            users = self.users(node)
            if users and node not in drained:
                raise InstanceInUseError(
                    f"Pods on node {node} use its GPUs, and mig-manager evicts none; drain them: {', '.join(users)}."
                )
        self._write(text)
        for node in waiting:
            body = {"metadata": {"labels": {LABEL: names[node], STATE_LABEL: "pending"}}}
            self._call("PATCH", f"/api/v1/nodes/{node}", json=body, headers=_MERGE)
        end = self._clock() + deadline_s
        for node in sorted(nodes):
            self._follow(node, names[node], end)
        return names

    def users(self, node: str) -> tuple[str, ...]:
        """Return the pods on a node that ask for GPUs or slices and have not ended, as namespace/name."""
        query = {"fieldSelector": f"spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed"}
        pods = self._call("GET", "/api/v1/pods", params=query).get("items", [])
        return tuple(sorted(f"{it['metadata']['namespace']}/{it['metadata']['name']}" for it in pods if _uses_gpus(it)))

    def _follow(self, node: str, name: str, end: float) -> None:
        while True:
            labels = self._labels(node)
            if labels.get(LABEL) != name:
                raise KubernetesError(f"Somebody else gave node {node} the MIG config {labels.get(LABEL)!r} meanwhile.")
            state = labels.get(STATE_LABEL, "")
            if state == "success":
                return
            if state == "failed":
                raise MigConfigFailedError(
                    f"mig-manager could not apply {name} on node {node}: its log says why "
                    f"(kubectl logs -n {self._where.namespace} -l app=nvidia-mig-manager)."
                )
            if self._clock() > end:
                raise DeadlineExceededError(f"Node {node} is still {state or 'not begun'} with MIG config {name}.")
            self._sleep(_POLL_S)

    def _labels(self, node: str) -> dict[str, str]:
        found: dict[str, str] = self._call("GET", f"/api/v1/nodes/{node}")["metadata"].get("labels", {})
        return found

    def _write(self, text: str) -> None:
        """Have the ConfigMap say this, whoever else writes it at the same time."""
        folder = f"/api/v1/namespaces/{self._where.namespace}/configmaps"
        metadata: dict[str, Any] = {"name": self._where.name}
        for _ in range(_TRIES):
            found = self._client.get(f"{folder}/{self._where.name}")
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"config.yaml": text}}
            if found.status_code == _NOT_FOUND:
                answer = self._client.post(folder, json=body)
            else:
                present = _checked(found)
                if present.get("data", {}).get("config.yaml") == text:
                    return
                version = present["metadata"]["resourceVersion"]
                answer = self._client.put(
                    f"{folder}/{self._where.name}", json={**body, "metadata": {**metadata, "resourceVersion": version}}
                )
            if answer.status_code != _CONFLICT:
                _checked(answer)
                return
        raise KubernetesError(f"ConfigMap {self._where.name} is written by others all the time; try again.")

    def _call(self, method: str, path: str, **given: Any) -> dict[str, Any]:  # noqa: ANN401 - httpx's own
        try:
            return _checked(self._client.request(method, path, **given))
        except httpx.TransportError as error:
            raise ServerUnreachableError(f"The Kubernetes API server cannot be reached: {error}") from error


def _checked(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = {}
    if answer.is_success and isinstance(body, dict):
        return body
    said = body.get("message", "") if isinstance(body, dict) else ""
    raise KubernetesError(f"The Kubernetes API server answered {answer.status_code}: {said or answer.reason_phrase}")


def _uses_gpus(pod: Mapping[str, Any]) -> bool:
    containers = pod["spec"].get("containers", [])
    asked = (name for it in containers for name in it.get("resources", {}).get("limits", {}))
    return any(name.startswith(_GPU_RESOURCES) for name in asked)
