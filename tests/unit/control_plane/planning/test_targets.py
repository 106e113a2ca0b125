"""Which target each server gets, and what a wish that changed or contradicts another one does to the plan."""

from dataclasses import replace

from control_plane.actions import Load
from control_plane.planning import (
    DeploymentState,
    Infeasible,
    Plan,
    deployment_status,
    plan_lifecycle,
    resolve_together,
)
from control_plane.state import Deployment, ModelName, ModelState, ObservedServer, ServerId
from tests.fakes.world import a_deployment, a_package, a_repository, a_target, seen, with_targets

READY = ModelState.READY
FP32, INT8, L4, H100 = "onnxruntime-cpu-fp32", "onnxruntime-cpu-int8", "tensorrt-sm_89-fp16", "tensorrt-sm_90-fp16"
NO_GPU_HERE = "needs a GPU of sm_90"
M = with_targets(
    a_package("m"),
    FP32,
    INT8,
    proven=a_target(L4, tensorrt="10.5.0.18"),
    unproven=a_target(H100, NO_GPU_HERE, tensorrt="10.5.0.18"),
)
PUBLISHED = a_repository(M, a_package("a"), a_package("inner", members=("m",)), a_package("e", members=("a", "inner")))
PLAIN = a_deployment("d", ("m", 1))


def plan(observed: ObservedServer, *deployments: Deployment) -> Plan:
    return plan_lifecycle(deployments or (PLAIN,), PUBLISHED, [observed])


def loaded(answer: Plan) -> list[str]:
    """Write the loads shortly: model, target, and those of the members."""
    loads = [step.action for step in answer.steps if isinstance(step.action, Load)]
    targets = ((load.model, [it.target for it in load.settings.values() if it.target]) for load in loads)
    return [f"{model} {' '.join(named)}".strip() for model, named in targets]


def by_id(holds: ObservedServer) -> dict[ServerId, ObservedServer]:
    return {holds.server.id: holds}


def test_every_server_gets_what_fits_it() -> None:
    servers = [seen(server="cpu"), seen(server="l4", gpus=("8.9",)), seen(server="h100", gpus=("9.0",))]
    answer = plan_lifecycle([PLAIN], PUBLISHED, servers)
    assert {it.server: it.target for it in answer.targets} == {"cpu": FP32, "l4": L4, "h100": FP32}
    assert [(it.server, it.serving) for it in answer.targets] == [("cpu", ""), ("h100", ""), ("l4", "")]


def test_an_unproven_engine_is_loaded_only_where_every_deployment_of_the_model_allows_it() -> None:
    h100 = seen(gpus=("9.0",))
    allowing = replace(PLAIN, allow_unproven=True)
    other = a_deployment("other", ("m", 1), at=1)
    assert loaded(plan(h100)) == [f"m {FP32}"]
    assert loaded(plan(h100, allowing)) == [f"m {H100}"]
    assert loaded(plan(h100, allowing, other)) == [f"m {FP32}"]
    assert loaded(plan(h100, allowing, replace(other, allow_unproven=True))) == [f"m {H100}"]


LM = replace(a_package("lm"), unproven={1: "fp16 needs an NVIDIA GPU"})
MODELS = a_repository(LM, a_package("over", members=("lm",)))
REFUSED = "version 1 is unproven (fp16 needs an NVIDIA GPU), and its deployments do not allow that."
CHAT = a_deployment("d", ("lm", 1))


def test_an_unproven_version_without_targets_is_loaded_only_where_every_deployment_of_it_allows_it() -> None:
    allowing = replace(CHAT, allow_unproven=True)
    other = a_deployment("other", ("lm", 1), at=1)
    assert loaded(plan_lifecycle([allowing], MODELS, [seen()])) == ["lm"]
    for deployments in ([CHAT], [allowing, other]):
        answer = plan_lifecycle(deployments, MODELS, [seen()])
        assert (answer.steps, [it.reason for it in answer.waiting]) == ((), [f"Model 'lm': {REFUSED}"])


def test_the_deployment_of_an_unproven_version_says_why_it_is_not_served() -> None:
    """Waiting does not change it, so it must not look as if it would."""
    status = deployment_status(CHAT, by_id(seen()), {}, plan_lifecycle([CHAT], MODELS, [seen()]))
    assert status.state is DeploymentState.FAILED
    assert [it.reason for it in status.servers] == [f"Model 'lm': {REFUSED}"]


def test_an_unproven_version_that_serves_is_left_alone_and_not_loaded_again_with_an_ensemble() -> None:
    holds = seen(("lm", 1, READY))
    answer = plan_lifecycle([CHAT], MODELS, [holds])
    assert (answer.steps, answer.waiting, answer.targets) == ((), (), ()), "clients go on being sent to it"
    ensemble = plan_lifecycle([a_deployment("e", ("lm", 1), ("over", 1))], MODELS, [holds])
    assert ensemble.steps == ()
    assert [(it.model, it.reason) for it in ensemble.waiting] == [("over", f"Its member 'lm': {REFUSED}")]


def test_an_engine_of_another_tensorrt_than_the_servers_own_is_not_loaded() -> None:
    newer = replace(seen(gpus=("8.9",)), triton_version="2.53.0")
    only = a_repository(with_targets(a_package("m"), engine=a_target(L4, tensorrt="10.5.0.18")))
    answer = plan_lifecycle([PLAIN], only, [newer])
    assert answer.steps == ()
    (waiting,) = answer.waiting
    assert waiting.reason.startswith("Model 'm': version 1 is not loaded here: no target of the version fits")
    assert "this server is Triton 24.12 with TensorRT 10.7" in waiting.reason
    assert "build it with TensorRT 10.7" in waiting.reason


def test_a_wish_that_changed_is_a_load_of_the_same_version() -> None:
    holds = seen(("m", 1, READY), files={"m": FP32})
    assert plan(holds).steps == ()
    answer = plan(holds, replace(PLAIN, precisions=("fp16", "int8")))
    assert loaded(answer) == [f"m {INT8}"]
    assert answer.steps[0].reason == f"Target {FP32} is ready, target {INT8} is needed by 'd'."
    stranger = plan(seen(("m", 1, READY), files={"m": "model.onnx"}))
    assert stranger.steps[0].reason == f"Another file is ready, target {FP32} is needed by 'd'."
    assert plan(seen(("m", 1, READY))).steps == (), "a server that does not say is believed"


def test_wishes_count_for_models_with_targets_alone() -> None:
    first = a_deployment("first", ("a", 1))
    second = a_deployment("second", ("a", 1), ("m", 1), at=1, precisions=("int8",))
    answer = plan(seen(), first, second)
    assert loaded(answer) == ["a", f"m {INT8}"]
    third = a_deployment("third", ("m", 1), at=2)
    answer = plan(seen(("m", 1, READY), files={"m": INT8}), first, second, third)
    (reason,) = reasons = answer.reasons_against(third.name)
    assert reason.startswith(
        "Deployment 'second' wishes model 'm' in int8, this one in its most precise target; a server"
    )
    holds = seen(("m", 1, READY), files={"m": INT8})
    status = deployment_status(third, by_id(holds), {}, answer)
    assert (status.state, status.reasons) == (DeploymentState.FAILED, reasons), "what serves is not what it wishes"


def test_members_are_pinned_again_with_their_targets() -> None:
    ensemble = a_deployment("d", ("m", 1), ("inner", 1), precisions=("int8",))
    assert loaded(plan(seen(), ensemble)) == [f"m {INT8}", f"inner {INT8}"]
    moving = plan(seen(("m", 1, READY), ("inner", 1, READY), files={"m": FP32}), ensemble)
    assert [step.reason for step in moving.steps][1] == "Its member 'm' is loaded anew."


def test_an_ensemble_is_not_loaded_over_a_member_that_nothing_fits_however_deep() -> None:
    """Its load would bring the member along, with the default target."""
    deployment = a_deployment("d", ("a", 1), ("m", 1), ("inner", 1), ("e", 1), precisions=("fp8",))
    answer = plan(seen(("a", 1, READY), ("m", 1, READY), ("inner", 1, READY), files={"m": FP32}), deployment)
    assert answer.steps == ()
    assert [it.model for it in answer.waiting] == ["m", "e"]
    assert answer.waiting[1].reason.startswith("Its member 'm': version 1 is not loaded here: no target of the version")


def test_what_nothing_fits_is_told_as_failed_and_what_serves_is_left_alone() -> None:
    holds = seen(("m", 1, READY), files={"m": FP32})
    wishing = replace(PLAIN, precisions=("fp8",))
    answer = plan(holds, wishing)
    assert answer.steps == ()
    status = deployment_status(wishing, by_id(holds), {}, answer)
    assert status.state is DeploymentState.FAILED
    (server,) = status.servers
    assert "onnxruntime-cpu-fp32 is fp32; fp8 is wished" in server.reason
    assert (server.models[0].target, server.models[0].state) == (FP32, READY)


def test_the_status_waits_for_the_target() -> None:
    holds = seen(("m", 1, READY), files={"m": FP32})
    wishing = replace(PLAIN, precisions=("int8",))
    for deployment, state in ((PLAIN, DeploymentState.SERVING), (wishing, DeploymentState.PROGRESSING)):
        assert deployment_status(deployment, by_id(holds), {}, plan(holds, deployment)).state is state


def test_a_choice_for_another_version_says_nothing_of_a_deployment() -> None:
    answer = plan(seen(("m", 1, READY), files={"m": FP32}))
    assert set(answer.targets_by_place) == {(ServerId("s0"), ModelName("m"))}
    other = a_deployment("d", ("m", 2))
    status = deployment_status(other, by_id(seen(("m", 2, READY))), {}, answer)
    assert status.state is DeploymentState.SERVING


def test_who_moves_with_another_is_asked_for_its_wishes_too() -> None:
    newer = a_repository(with_targets(a_package("m", (1, 2)), FP32, INT8))
    mine, other = a_deployment("mine", ("m", 1)), a_deployment("other", ("m", 1), precisions=("int8",))
    answer = resolve_together(mine, [other], newer)
    assert isinstance(answer, Infeasible)
    (reason,) = answer.reasons
    assert reason.startswith("Deployment 'other' wishes model 'm' in int8, this one in its most precise target")
    third = a_deployment("third", ("m", 1), at=1)
    among_them = resolve_together(mine, [third, other], newer)
    assert isinstance(among_them, Infeasible)
    moving = "Deployment 'third' would move with it: Deployment 'other' wishes model 'm' in int8"
    assert any(reason.startswith(moving) for reason in among_them.reasons)
