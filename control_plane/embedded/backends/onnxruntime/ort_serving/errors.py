"""The two things that can go wrong here: a model that cannot be served as configured, and a request that cannot be run.

`triton_model` lets the first fail the load and turns the second into that request's error response.
"""


class ModelSetupError(Exception):
    """The configuration, its parameters or the ONNX file are at fault. `str()` names the model's part and the value."""


class RunError(Exception):
    """One session call failed; `invalid_argument` says that the input, not the server, is at fault."""

    def __init__(self, message: str, *, invalid_argument: bool) -> None:
        super().__init__(message)
        self.invalid_argument = invalid_argument
