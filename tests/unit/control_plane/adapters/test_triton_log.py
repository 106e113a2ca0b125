"""Finding causes in the lines that Triton 2.51 really wrote."""

from control_plane.adapters.triton_log import cause_in_log, hides_cause, last_words

INVALID = (
    "E1123 19:47:12.578166 4148 model_repository_manager.cc:1460] \"Poll failed for model directory 'invalid': "
    'dynamic batching preferred size must be <= max batch size for invalid"'
)
GARBLED = """\
[libprotobuf ERROR /x/text_format.cc:337] Error parsing text-format inference.ModelConfig: 1:15: String literals \
cannot cross line boundaries.
E1123 19:47:12.580725 4148 model_repository_manager.cc:1460] "Poll failed for model directory 'garbled': failed to \
read text proto from /repo/garbled/config.pbtxt"
""".splitlines()
MISSING = (
    "E1123 19:47:12.582108 4148 model_repository_manager.cc:1415] \"failed to poll model 'gone': model not found in "
    'any model repository."'
)
BROKEN = (
    "E1123 19:47:12.573081 4148 model_lifecycle.cc:642] \"failed to load 'broken' version 1: Internal: "
    "ModuleNotFoundError: No module named 'x'\\n\\nAt:\\n  model.py(1): <module>\\n\""
)
OTHER = 'I1123 19:47:12.450821 4148 model_lifecycle.cc:472] "loading: slow:1"'


def test_which_answers_hide_the_cause() -> None:
    assert hides_cause("failed to load 'x', failed to poll from model repository")
    assert hides_cause(" ")
    assert not hides_cause("load failed for model 'x': version 1 is at UNAVAILABLE state: Internal: boom")


def test_a_config_that_does_not_validate() -> None:
    assert cause_in_log([OTHER, INVALID], "invalid") == (
        "dynamic batching preferred size must be <= max batch size for invalid"
    )


def test_a_config_that_does_not_parse_comes_with_its_line() -> None:
    assert "1:15: String literals cannot cross" in cause_in_log(GARBLED, "garbled")


def test_a_missing_model() -> None:
    assert cause_in_log([MISSING], "gone") == "model not found in any model repository."


def test_line_breaks_are_line_breaks_again() -> None:
    assert cause_in_log([BROKEN], "broken").splitlines()[0] == "Internal: ModuleNotFoundError: No module named 'x'"


def test_causes_of_other_models_are_not_taken() -> None:
    assert cause_in_log([INVALID, MISSING], "other") == ""


def test_last_words_are_those_about_the_model_and_what_is_no_line_of_tritons() -> None:
    assert last_words([OTHER, "./stub: error while loading shared libraries: libx.so"], "slow") == (
        "loading: slow:1\n./stub: error while loading shared libraries: libx.so"
    )
    assert last_words([OTHER], "another") == ""
