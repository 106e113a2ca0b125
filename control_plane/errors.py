"""What can go wrong in the control plane: one root, split by whether trying again can help.

Adapters translate every vendor error into one of these (`raise ... from exc`); HTTP status codes are given to them in
`api` alone, exit codes in `cli` alone. An answer such as "this model is not in the repository" is a value of
`planning`, not an exception.
"""


class ControlPlaneError(Exception):
    """Root of everything the control plane raises. `str()` of it is one sentence that names the cause."""


class RetryableError(ControlPlaneError):
    """The same call may succeed later without anybody changing anything."""


class PermanentError(ControlPlaneError):
    """The same call will fail again until somebody changes its input or the system."""


class ServerUnreachableError(RetryableError):
    """No Triton answered at the address (refused, reset, no route)."""


class DeadlineExceededError(RetryableError):
    """A call out did not answer within its deadline."""


class NameNotResolvedError(RetryableError):
    """DNS gave no address of a name: there is none now, or no name server said so."""


class LoadFailedError(PermanentError):
    """Triton refused to load a model. `str()` holds Triton's own reason, or the cause found in the server's log."""


class AdminKeyRefusedError(PermanentError):
    """Triton refused a restricted API: the server was started with another admin key."""


class ServerStartError(PermanentError):
    """A tritonserver could not be started, or went away before it was ready. Holds the last lines of its log."""


class PortTakenError(PermanentError):
    """An address this process was told to listen on is in use."""


class NotOursError(PermanentError):
    """A server's process was started by somebody else, who alone can start it again."""


class StateFileLockedError(PermanentError):
    """Another control plane holds the state file."""


class StateFileError(PermanentError):
    """The state file cannot be used: damaged, not ours, or written by a newer Tritonfleet."""


class SettingsError(PermanentError):
    """A setting is missing, wrong, or unsafe. Names the setting and what to give instead."""


class MissingExtraError(PermanentError):
    """An optional part is not installed; the text says which extra brings it."""


class NoSpaceError(RetryableError):
    """A server's repository location has no room for a version. Retryable, for unused versions can be removed.

    `bytes_short` is how many bytes more must be free there.
    """

    def __init__(self, message: str, *, bytes_short: int) -> None:
        super().__init__(message)
        self.bytes_short = bytes_short


class LocationBusyError(RetryableError):
    """Somebody else has been at work in a server's repository location for too long."""


class LocationError(PermanentError):
    """A server's repository location cannot be used, or holds another version of that number that is not ours."""


class DamagedVersionError(PermanentError):
    """A published version is not whole, or not what its manifest says. Names the file."""
