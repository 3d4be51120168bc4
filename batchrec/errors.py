"""What can go wrong that is not a bug: each error is one line that says where, what was found and what to do."""


def one_line(error: BaseException) -> str:
    """Return what a library says of an error, of up to 400 characters, without line breaks."""
    return " ".join(str(error).split())[:400]


class BatchrecError(Exception):
    """An error that the caller can act on. report: what is known of the night that it ended, if it ended one."""

    exit_code = 1
    report: object = None


class ConfigError(BatchrecError):
    """An option, a query or an output path that cannot be used."""

    exit_code = 2

    @classmethod
    def of(cls, error: OSError, where: object) -> "ConfigError":
        """Say what the disk, or the system, refuses; where: the path, if the error has none."""
        return cls(f"{error.filename or where}: cannot be used: {error.strerror or error}")


class InputError(BatchrecError):
    """Input that breaks its contract."""

    exit_code = 3


class ModelError(BatchrecError):
    """A model directory that is damaged, incomplete or of another version."""

    exit_code = 4


class DeviceError(BatchrecError):
    """The device that was asked for is not there."""

    exit_code = 5


class GateError(BatchrecError):
    """A gate was not passed: nothing was published."""

    exit_code = 6


class LockedError(BatchrecError):
    """Another run is at work."""

    exit_code = 7


class NothingToDo(BatchrecError):  # noqa: N818 - no error: there is only nothing to do
    """What was asked for is done already."""

    exit_code = 99
