"""The two things that can go wrong here: a model that cannot be served, and a request that cannot be run.

`triton_model` lets the first fail the load and turns the second into that request's error response.
"""


class ModelSetupError(Exception):
    """The configuration, the engine or this machine is at fault. `str()` names the part and the value."""


class RunError(Exception):
    """One run of the engine failed; `invalid_argument` says that the input, not the server, is at fault."""

    def __init__(self, message: str, *, invalid_argument: bool) -> None:
        super().__init__(message)
        self.invalid_argument = invalid_argument
