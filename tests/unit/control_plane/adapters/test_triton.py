"""What the adapter makes of a Triton that answers half: one that keeps calls to itself, or that is half gone."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from control_plane.adapters.triton import GrpcTritonControl
from control_plane.state import Endpoints, ModelState, Server, ServerCondition, ServerId

RESTRICTED = "This protocol is restricted, expecting header 'triton-grpc-protocol-admin-key'"


@dataclass
class HalfTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # generated, without types
    """A Triton with `models` ready, each with one of two counted requests failed; `refuses` names calls."""

    models: tuple[str, ...]
    refuses: frozenset[str] = frozenset()
    ready: bool = True

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        return service_pb2.ServerMetadataResponse(version="2.51.0")

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        return service_pb2.ServerReadyResponse(ready=self.ready)

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        answer = service_pb2.RepositoryIndexResponse()
        for name in self.models:
            answer.models.add(name=name, version="1", state="READY")
        return answer

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        if "config" in self.refuses or f"config of {request.name}" in self.refuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")
        answer = service_pb2.ModelConfigResponse()
        answer.config.backend = "python"
        answer.config.instance_group.add(count=2)
        answer.config.instance_group.add(count=1, gpus=[0, 1])
        answer.config.parameters["tritonfleet_generation"].string_value = "4"
        return answer

    async def ModelStatistics(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        if "statistics" in self.refuses:
            await context.abort(grpc.StatusCode.UNAVAILABLE, RESTRICTED)
        answer = service_pb2.ModelStatisticsResponse()
        for name in self.models:
            counted = answer.model_stats.add(name=name, version="1").inference_stats
            counted.success.count = counted.fail.count = 1
        return answer


def run(half: HalfTriton, scenario: Callable[[GrpcTritonControl, Server, Any], Awaitable[None]]) -> None:
    async def body() -> None:
        listener = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(half, listener)
        address = f"127.0.0.1:{listener.add_insecure_port('127.0.0.1:0')}"
        await listener.start()
        control = GrpcTritonControl(lambda _: None)
        try:
            await scenario(control, Server(ServerId("half"), Endpoints("", address, "")), listener)
        finally:
            await control.close()
            await listener.stop(None)

    asyncio.run(body())


def test_a_server_that_keeps_its_statistics_is_healthy_all_the_same() -> None:
    async def scenario(control: GrpcTritonControl, server: Server, _: Any) -> None:
        seen = await control.observe(server)
        assert (seen.condition, seen.triton_version) == (ServerCondition.HEALTHY, "2.51.0")
        (row,) = seen.models
        assert (row.instances, row.generation, row.succeeded, row.failed) == (4, 4, 0, 0)
        assert row.backend == "python"

    run(HalfTriton(("m",), frozenset({"statistics"})), scenario)


def test_a_model_that_vanishes_between_the_calls_is_told_as_far_as_it_is_known() -> None:
    async def scenario(control: GrpcTritonControl, server: Server, _: Any) -> None:
        seen = await control.observe(server)
        assert seen.condition is ServerCondition.HEALTHY
        assert [(it.name, it.state, it.instances, it.failed) for it in seen.models] == [
            ("gone", ModelState.READY, 0, 1),
            ("here", ModelState.READY, 4, 1),
        ]

    run(HalfTriton(("gone", "here"), frozenset({"config of gone"})), scenario)


def test_a_server_that_is_not_ready_is_commanded_and_says_so() -> None:
    async def scenario(control: GrpcTritonControl, server: Server, _: Any) -> None:
        seen = await control.observe(server)
        assert (seen.condition, seen.answers) == (ServerCondition.HEALTHY, True)
        assert "says that it is not ready" in seen.detail

    run(HalfTriton(("m",), ready=False), scenario)
