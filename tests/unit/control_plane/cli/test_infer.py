"""`infer` against a stand-in for the control plane and Triton's HTTP: what is sent, what is shown, what is refused."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Ended, run_here
from tests.scripted_http import Answer, ScriptedServer, scripted_server


def tensor(name: str, datatype: str, shape: list[int]) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": shape}


def server_body(address: str, *models: str) -> dict[str, object]:
    rows = [{"name": model, "version": 1, "state": "READY", "reason": ""} for model in models]
    return {"id": "triton-0", "endpoints": {"http": address, "grpc": address, "metrics": address}, "models": rows}


def is_open(script: ScriptedServer, inputs: list[dict[str, object]], **outputs: tuple[str, list[int], Any]) -> None:
    """Have `m` there, with these inputs, answering these outputs."""
    answers = [{**tensor(name, kind, shape), "data": data} for name, (kind, shape, data) in outputs.items()]
    declared = [tensor(name, kind, shape) for name, (kind, shape, _) in outputs.items()]
    script.answer("GET /v1/servers", {"servers": [server_body(script.address, "m")]})
    script.answer("GET /v2/models/m", {"name": "m", "inputs": inputs, "outputs": declared})
    script.answer("POST /v2/models/m/infer", {"model_name": "m", "model_version": "1", "outputs": answers})


@pytest.fixture
def script() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


def infer(script: ScriptedServer, *arguments: str) -> Ended:
    return run_here("infer", "m", *arguments, "--protocol", "http", "--url", script.url)


def sent(script: ScriptedServer) -> tuple[dict[str, dict[str, Any]], bytes]:
    """Return the inputs of the last request by name, and their bytes."""
    asked = script.asked[-1]
    length = int(asked.headers["inference-header-content-length"])
    return {entry["name"]: entry for entry in json.loads(asked.body[:length])["inputs"]}, asked.body[length:]


def test_texts_go_to_the_one_string_input(script: ScriptedServer) -> None:
    is_open(script, [tensor("text", "BYTES", [-1, 1])], embedding=("FP32", [2, 2], [0.25, 1.0, 1 / 3, -2.0]))
    ended = infer(script, "one", "zwei é", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.data["model"] == "m"
    assert ended.data["server"] == "triton-0"
    (output,) = ended.data["outputs"]
    assert (output["name"], output["shape"], output["datatype"]) == ("embedding", [2, 2], "float32")
    assert output["data"] == [[0.25, 1.0], [pytest.approx(1 / 3), -2.0]]
    inputs, content = sent(script)
    assert inputs["text"]["shape"] == [2, 1]
    assert b"one" in content
    assert "zwei é".encode() in content


def test_what_the_shell_gave_in_another_encoding_goes_out_as_it_came(script: ScriptedServer) -> None:
    is_open(script, [tensor("text", "BYTES", [-1, 1])], y=("FP32", [1], [0.0]))
    assert infer(script, "caf\udce9").code == 0
    assert sent(script)[1].endswith(b"caf\xe9")


def test_inputs_from_json_and_files_take_the_models_types(script: ScriptedServer, tmp_path: Path) -> None:
    declared = [tensor("ids", "INT64", [-1, -1]), tensor("flag", "BOOL", [1]), tensor("half", "FP16", [2])]
    is_open(script, declared, y=("BOOL", [2], [True, False]))
    (tmp_path / "ids.json").write_text("[[1, 2, 3]]")
    ended = infer(script, "-i", f"ids=@{tmp_path / 'ids.json'}", "-i", "flag=[true]", "-i", "half=[0.5, 2]")
    assert (ended.code, ended.err) == (0, "")
    inputs, content = sent(script)
    assert {name: (it["datatype"], it["shape"]) for name, it in inputs.items()} == {
        "ids": ("INT64", [1, 3]),
        "flag": ("BOOL", [1]),
        "half": ("FP16", [2]),
    }
    assert len(content) == 3 * 8 + 1 + 2 * 2
    assert "y bool 2 True, False" in ended.flat


def test_what_json_has_no_number_for_is_a_string(script: ScriptedServer) -> None:
    nan, inf = float("nan"), float("inf")
    is_open(script, [tensor("text", "BYTES", [1])], y=("FP32", [2, 2], [nan, inf, -inf, 1.5]))
    assert infer(script, "x", "--json").data["outputs"][0]["data"] == [["NaN", "Infinity"], ["-Infinity", 1.5]]
    assert "y float32 2x2 NaN, Infinity, -Infinity, 1.5" in infer(script, "x").flat


def test_whole_numbers_strings_and_long_outputs_are_shown_as_they_are(script: ScriptedServer) -> None:
    is_open(
        script,
        [tensor("text", "BYTES", [1])],
        count=("INT64", [1], [1_234_567_891]),
        words=("BYTES", [2], ["[red]a[/red]", "[/x] :cat:"]),
        long=("FP32", [8], [1 / 3] * 8),
    )
    flat = infer(script, "x").flat
    assert "count int64 1 1234567891" in flat
    assert "words object 2 [red]a[/red], [/x] :cat:" in flat
    assert "0.333333, ... (8 values)" in flat
    assert infer(script, "x", "--json").data["outputs"][1]["data"] == ["[red]a[/red]", "[/x] :cat:"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give texts, or --input for: text (BYTES), ids (INT64)"),
        (("-i", "ids"), "'ids' is not NAME=JSON with NAME one of: ids, text"),
        (("-i", "idz=[1]"), "'idz=[1]' is not NAME=JSON"),
        (("-i", "ids=[1"), "ids: not JSON"),
        (("-i", "ids=@/nowhere/ids.json"), "ids: cannot read /nowhere/ids.json: No such file"),
        (("-i", "ids=[[1], [2, 3]]"), "ids: not a regular array of INT64"),
        (("-i", 'ids=["a"]'), "ids: not a regular array of INT64"),
        (("-i", "ids=[99999999999999999999]"), "ids: not a regular array of INT64"),
        (("-i", "text=[1]"), "text: not a regular array of BYTES"),
        (("-i", 'text=["\\ud800"]'), "text: not a regular array of BYTES"),
    ],
)
def test_wrong_inputs_are_usage_errors_that_say_what_the_model_takes(
    script: ScriptedServer, arguments: tuple[str, ...], said: str
) -> None:
    is_open(script, [tensor("text", "BYTES", [1]), tensor("ids", "INT64", [1])], y=("FP32", [1], [0.0]))
    ended = infer(script, *arguments, "--json")
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.flat


def test_texts_need_a_model_with_one_string_input(script: ScriptedServer) -> None:
    is_open(script, [tensor("ids", "INT64", [1])], y=("FP32", [1], [0.0]))
    ended = infer(script, "text")
    assert ended.code == 2
    assert "texts need a model with one string input; it has 0" in ended.flat


def test_a_model_that_is_nowhere_ready_is_told_with_those_that_are(script: ScriptedServer) -> None:
    script.answer("GET /v1/servers", {"servers": [server_body(script.address, "other")]})
    ended = infer(script, "text", "--json")
    assert (ended.code, ended.out) == (1, "")
    assert "model 'm' is ready on no server; ready are: other. Deploy it: tritonfleet deploy m" in ended.flat


def test_what_triton_refuses_is_told_in_its_words(script: ScriptedServer) -> None:
    is_open(script, [tensor("text", "BYTES", [1])], y=("FP32", [1], [0.0]))
    script.answer("POST /v2/models/m/infer", Answer({"error": "[guard] 131073 characters"}, 400))
    ended = infer(script, "text", "--json")
    assert (ended.code, ended.out) == (1, "")
    assert f"error: m at {script.address}: [guard] 131073 characters" in ended.err


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_server_that_does_not_answer_ends_with_3(script: ScriptedServer, protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    script.answer("GET /v1/servers", {"servers": [server_body(address, "m")]})
    ended = run_here("infer", "m", "text", "--protocol", protocol, "--json", "--url", script.url)
    assert (ended.code, ended.out) == (3, "")
    assert f"m: the server at {address} does not answer" in ended.flat
    assert "next: tritonfleet status shows which servers answer" in ended.err
