"""One suite for probes: the fake, and a real embedded tritonserver behind the real adapter."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from control_plane.ports import TritonControl
from control_plane.state import ModelName, Probe, ProbeResult
from tests.triton_bench import NOWHERE, Bench, RealRepository

Tensors = tuple[Mapping[str, Any], ...]

NUMBERS = ["FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]


def tensors(name: str, *values: Any, datatype: str = "FP32") -> Tensors:
    return ({"name": name, "datatype": datatype, "shape": [1, len(values)], "data": list(values)},)


X, Y = tensors("X", 1.0), tensors("Y", 2.0)
"""What the published models are sent, and answer to it."""


def probed(bench: Bench, model: str, inputs: Tensors = X, outputs: Tensors = (), version: int = 1) -> ProbeResult:
    """Load a model and probe it."""
    results: list[ProbeResult] = []

    async def scenario(control: TritonControl) -> None:
        await bench.load(control, model)
        results.append(await control.probe(bench.server, Probe(ModelName(model), version, inputs, outputs)))

    bench.run(scenario)
    return results[0]


def test_a_model_that_answers_works(bench: Bench) -> None:
    bench.repository.publish("works", 1)
    for outputs in ((), Y):
        result = probed(bench, "works", X, outputs)
        assert (result.broken, result.unsure) == ("", "")
        assert result.probe == Probe(ModelName("works"), 1, X, outputs)


def test_a_wrong_golden_answer_is_broken(bench: Bench) -> None:
    bench.repository.publish_wrong("wrong")
    assert "answers a golden request wrongly: output 'Y' is off by up to 1" in probed(bench, "wrong", X, Y).broken
    assert probed(bench, "wrong").broken == ""


def test_an_error_of_the_models_own_breaks_a_golden_request_alone(bench: Bench) -> None:
    bench.repository.publish_refusing("refusing")
    golden = probed(bench, "refusing", X, Y)
    assert golden.broken.startswith("it refuses a golden request: ")
    assert "ValueError: not like this" in golden.broken
    result = probed(bench, "refusing")
    assert (result.broken, result.unsure) == ("", "")


def test_no_answer_in_time_is_broken(bench: Bench) -> None:
    bench.repository.publish_slow("slow")
    assert probed(bench, "slow").broken.startswith("it did not answer within ")


def test_failed_probes_count_as_failed_requests(bench: Bench) -> None:
    bench.repository.publish_refusing("counted")

    async def scenario(control: TritonControl) -> None:
        await bench.load(control, "counted")
        for _ in range(2):
            await control.probe(bench.server, Probe(ModelName("counted"), 1, X))
        assert (await bench.row(control, "counted")).failed == 2

    bench.run(scenario)


@pytest.mark.parametrize(("model", "version"), [("never_there", 1), ("here", 7), ("gone", 1)])
def test_of_what_is_not_loaded_nothing_can_be_told(bench: Bench, model: str, version: int) -> None:
    bench.repository.publish("here", 1)
    bench.repository.publish("gone", 1)

    async def scenario(control: TritonControl) -> None:
        await bench.load(control, "here")
        await bench.load(control, "gone")
        await control.unload(bench.server, ModelName("gone"))
        result = await control.probe(bench.server, Probe(ModelName(model), version, X, Y))
        assert (result.broken, "unknown model" in result.unsure) == ("", True)

    bench.run(scenario)


def test_of_a_server_that_is_not_there_nothing_can_be_told(bench: Bench) -> None:
    async def scenario(control: TritonControl) -> None:
        result = await control.probe(NOWHERE, Probe(ModelName("any"), 1, X, Y))
        assert (result.broken, "refused" in result.unsure) == ("", True)

    bench.run(scenario)


def test_one_dead_process_among_several_is_found(real: Bench) -> None:
    """Measured on 2.51: Triton gives requests to idle instances in turn, if not strictly, so every third one fails."""
    real.repository.publish("partly", 1)
    assert isinstance(real.repository, RealRepository)
    repository = real.repository
    probe = Probe(ModelName("partly"), 1, X)

    async def scenario(control: TritonControl) -> None:
        await real.load(control, "partly", instances=3)
        await control.observe(real.server)
        assert await control.probe(real.server, probe) == ProbeResult(probe)
        repository.stubs("partly")[1].kill()
        found = [(await control.probe(real.server, probe)).broken for _ in range(6)]
        assert sum("is not healthy" in it for it in found) >= 3, found

    real.run(scenario)


def test_a_dead_process_of_a_member_is_found_through_the_ensemble(real: Bench) -> None:
    real.repository.publish("inner", 1)
    real.repository.publish_ensemble("outer", "inner")

    async def scenario(control: TritonControl) -> None:
        await real.load(control, "inner")
        await real.load(control, "outer")
        real.repository.kill(real.server, "inner")
        assert "is not healthy" in (await control.probe(real.server, Probe(ModelName("outer"), 1, X))).broken

    real.run(scenario)


ECHO = """\
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", tensor)]) for tensor in inputs]
"""
DECOUPLED = """\
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            tensor = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            sender = request.get_response_sender()
            for factor in FACTORS:
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("Y", tensor * factor)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


def write(bench: Bench, name: str, code: str, config: str = "", datatype: str = "FP32") -> None:
    """Publish a Python model X -> Y of any width."""
    assert isinstance(bench.repository, RealRepository)
    version = bench.repository.root / name / "1"
    version.mkdir(parents=True, exist_ok=True)
    (version / "model.py").write_text(code)
    kind = f"TYPE_{datatype}".replace("BYTES", "STRING")
    (version.parent / "config.pbtxt").write_text(
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: 8\n'
        f'input [ {{ name: "X" data_type: {kind} dims: [ -1 ] }} ]\n'
        f'output [ {{ name: "Y" data_type: {kind} dims: [ -1 ] }} ]\n{config}'
    )


SAMPLES: dict[str, tuple[list[Any], list[Any]]] = {
    **dict.fromkeys(NUMBERS, ([1, 0], [1, 2])),
    "BOOL": ([True, False], [True, True]),
    "BYTES": (["naïve", ""], ["naïve", "x"]),
}


@pytest.mark.parametrize("datatype", SAMPLES)
def test_every_datatype_goes_there_and_back(real: Bench, datatype: str) -> None:
    model = f"echo_{datatype.lower()}"
    write(real, model, ECHO, datatype=datatype)
    given, other = SAMPLES[datatype]
    sent = tensors("X", *given, datatype=datatype)
    result = probed(real, model, sent, tensors("Y", *given, datatype=datatype))
    assert (result.broken, result.unsure) == ("", "")
    assert "wrongly: output 'Y'" in probed(real, model, sent, tensors("Y", *other, datatype=datatype)).broken


@pytest.mark.parametrize(("factors", "broken"), [("(2, 3)", ""), ("(3, 2)", "off by up to 1"), ("()", "lacks output")])
def test_a_decoupled_model_is_held_to_its_first_response(real: Bench, factors: str, broken: str) -> None:
    model = f"decoupled_{len(factors)}_{factors[1]}".replace(")", "none")
    write(real, model, f"FACTORS = {factors}\n{DECOUPLED}", "model_transaction_policy { decoupled: true }\n")
    assert probed(real, model).broken == ""
    golden = probed(real, model, X, Y)
    assert (broken in golden.broken, golden.unsure) == (True, "")
    assert bool(golden.broken) == bool(broken)


def test_a_dead_decoupled_model_is_found(real: Bench) -> None:
    write(real, "streams", f"FACTORS = (1,)\n{DECOUPLED}", "model_transaction_policy { decoupled: true }\n")
    probe = Probe(ModelName("streams"), 1, X)

    async def scenario(control: TritonControl) -> None:
        await real.load(control, "streams")
        real.repository.kill(real.server, "streams")
        assert "is not healthy" in (await control.probe(real.server, probe)).broken

    real.run(scenario)


def test_a_model_with_sequences_is_sent_one_of_one_request(real: Bench) -> None:
    write(real, "sequence", ECHO, "sequence_batching { }\n")
    probe = Probe(ModelName("sequence"), 1, X, tensors("Y", 1.0))

    async def scenario(control: TritonControl) -> None:
        await real.load(control, "sequence")
        for _ in range(3):
            assert await control.probe(real.server, probe) == ProbeResult(probe)
        real.repository.kill(real.server, "sequence")
        assert "is not healthy" in (await control.probe(real.server, probe)).broken

    real.run(scenario)


def test_a_process_that_dies_under_the_probe_is_found(real: Bench) -> None:
    real.repository.publish_slow("dies")
    probe = Probe(ModelName("dies"), 1, X)

    async def scenario(control: TritonControl) -> None:
        await real.load(control, "dies")
        probing = asyncio.create_task(control.probe(real.server, probe))
        await asyncio.sleep(0.5)
        real.repository.kill(real.server, "dies")
        assert (await probing).broken

    real.run(scenario)
