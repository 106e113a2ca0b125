"""A Kubernetes API server with nodes, pods and ConfigMaps in memory, and a mig-manager that follows the label.

Answers httpx without a network; it does what the API conventions say (merge patches, resourceVersion, 404 and 409).
"""

import json
from typing import Any

import httpx

from control_plane.mig.parted import LABEL, STATE_LABEL


class FakeKubernetes:
    """`outcome` is what mig-manager comes to; `conflicts` so many writes of a ConfigMap are beaten by another."""

    def __init__(self, *nodes: str) -> None:
        self.nodes: dict[str, dict[str, str]] = {node: {} for node in nodes}
        self.pods: list[dict[str, Any]] = []
        self.config: dict[str, Any] | None = None
        self.outcome, self.conflicts, self.version = "success", 0, 1
        self.calls: list[str] = []

    def client(self) -> httpx.Client:
        return httpx.Client(base_url="https://kubernetes", transport=httpx.MockTransport(self._answer))

    def run_pod(self, node: str, name: str, **limits: str) -> None:
        resources = {"limits": {key.replace("__", "/").replace("_", "."): value for key, value in limits.items()}}
        spec = {"nodeName": node, "containers": [{"resources": resources}]}
        self.pods.append({"metadata": {"namespace": "default", "name": name}, "spec": spec})

    def turn(self, _seconds: float = 0.0) -> None:
        """Let mig-manager go on: pending, then its outcome."""
        for labels in self.nodes.values():
            if labels.get(STATE_LABEL) == "pending":
                labels[STATE_LABEL] = self.outcome

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.calls.append(f"{request.method} {path}")
        if path == "/api/v1/pods":
            node = request.url.params["fieldSelector"].split(",")[0].removeprefix("spec.nodeName=")
            return httpx.Response(200, json={"items": [it for it in self.pods if it["spec"]["nodeName"] == node]})
        if "/configmaps" in path:
            return self._config_map(request)
        labels = self.nodes.get(path.rpartition("/")[2])
        if labels is None:
            return httpx.Response(404, json={"message": f'nodes "{path.rpartition("/")[2]}" not found'})
        if request.method == "PATCH":
            assert request.headers["content-type"] == "application/merge-patch+json"
            labels |= json.loads(request.content)["metadata"]["labels"]
            assert self.config is not None, "the label names a config that is not there"
            assert labels[LABEL] in json.loads(self.config["data"]["config.yaml"])["mig-configs"]
        return httpx.Response(200, json={"metadata": {"labels": labels}})

    def _config_map(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=self.config) if self.config else httpx.Response(404, json={})
        body = json.loads(request.content)
        if self.conflicts:
            self.conflicts -= 1
            self.version += 1
            body = {**body, "data": {"config.yaml": "another's"}}
            self._keep(body)
            return httpx.Response(409, json={"message": "the object has been modified"})
        if self.config and body["metadata"].get("resourceVersion") != str(self.version):
            return httpx.Response(409, json={"message": "the object has been modified"})
        self._keep(body)
        return httpx.Response(201, json=self.config)

    def _keep(self, body: dict[str, Any]) -> None:
        self.version += 1
        metadata = {**body["metadata"], "resourceVersion": str(self.version)}
        self.config = {**body, "metadata": metadata}
