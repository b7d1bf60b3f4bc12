"""What can go wrong on the device, as one family: one clear sentence each, and an exit code."""

from __future__ import annotations


class AgentError(Exception):
    """Something that a person must know; its text is one sentence that says what to do."""

    exit_code = 1


class UsageError(AgentError):
    """The command, or what was given to it, is wrong."""

    exit_code = 2


class BadTokenError(UsageError):
    def __init__(self, problem: str) -> None:
        super().__init__(
            f"this is not an enrolment token ({problem}): copy the whole line that"
            " `genba device enroll NAME` prints on the host"
        )
        self.problem = problem


class NotEnrolledError(AgentError):
    def __init__(self, home: str) -> None:
        super().__init__(
            f"this device is not enrolled ({home} holds no identity): run"
            " `genba-agent enroll --token TOKEN` with a token from the host"
        )
        self.home = home


class AlreadyEnrolledError(UsageError):
    def __init__(self, home: str, device_name: str) -> None:
        super().__init__(
            f"{home} already holds the identity of device {device_name}: add --force to replace it"
        )
        self.home = home
        self.device_name = device_name


class DamagedStateError(AgentError):
    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path} cannot be used ({problem}): repair it, or move it away")
        self.path = path
        self.problem = problem


class DamagedOutboxError(DamagedStateError):
    """The file is no database, or no longer a whole one."""


class NoCryptographyError(AgentError):
    def __init__(self, problem: str) -> None:
        super().__init__(
            f"the device has nothing to make keys and check signatures with ({problem}): install"
            " the openssl command or the Python package cryptography"
        )
        self.problem = problem


class WrongHostError(AgentError):
    def __init__(self, address: str) -> None:
        super().__init__(
            f"the host at {address} is not the one that made this token (its certificate has"
            " another fingerprint): nothing was sent to it; check the address, or ask for a new"
            " token"
        )
        self.address = address


class AlreadyRunningError(AgentError):
    def __init__(self, home: str) -> None:
        super().__init__(f"another agent runs with {home}: stop that one, or give --home")
        self.home = home


class HostAwayError(AgentError):
    """The host cannot be reached now, or broke off; the same call may succeed another time."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"the host cannot be reached ({code}: {detail})")
        self.code = code
        self.detail = detail


class HostBusyError(HostAwayError):
    """The host has more to do than it can; the connection is good."""


class SessionLostError(HostAwayError):
    """The host took Hello but not what followed; saying hello again tells why."""

    def __str__(self) -> str:
        return f"the host ended the session ({self.code}: {self.detail})"


class HostRefusedError(AgentError):
    """The host will not work with this agent until a person changes something."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"the host refuses this device: {detail}")
        self.code = code
        self.detail = detail


class ProtocolMismatchError(HostRefusedError):
    def __init__(self, host: int, agent_min: int, agent_max: int) -> None:
        mend = "update genba on the host" if host < agent_min else "update the agent on this device"
        super().__init__(
            "FAILED_PRECONDITION",
            f"the host speaks protocol {host} and this agent {agent_min} to {agent_max}: {mend}",
        )

    def __str__(self) -> str:
        return self.detail


class UnprovenLeaseError(HostRefusedError):
    """What came as a job is not proven to come from the host's owner; nothing of it was used."""

    def __init__(self, problem: str) -> None:
        super().__init__("UNPROVEN_LEASE", problem)

    def __str__(self) -> str:
        return f"no job is taken from the host, because {self.detail}"


class RequestRefusedError(AgentError):
    """The host refused this one request; others may go on."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"the host refused a request ({code}: {detail})")
        self.code = code
        self.detail = detail


class MessageTooLargeError(RequestRefusedError):
    """A message is over the limit of one side; the same one never passes."""


class CorruptBlobError(AgentError):
    def __init__(self, sha256: str, problem: str) -> None:
        super().__init__(
            f"the file {sha256[:12]} from the host is not what was announced: {problem}"
        )
        self.sha256 = sha256
        self.problem = problem


class CacheError(AgentError):
    def __init__(self, sha256: str, problem: str) -> None:
        super().__init__(f"the file {sha256[:12]} cannot be kept on this device: {problem}")
        self.sha256 = sha256
        self.problem = problem


class ModelRejectedError(AgentError):
    """The model scan or the runtime refused the file."""


class NoRuntimeError(AgentError):
    """The runtime that a job asks for is missing or does not work here."""


class ResourceError(AgentError):
    """A limit of the device was hit, memory for example."""


class NotReadyError(AgentError):
    """The device is no fit place for a measurement now; the text says why and what mends it."""


class JobCancelledError(AgentError):
    """The host no longer wants the job at hand."""

    def __init__(self) -> None:
        super().__init__("the host cancelled the job")


class JobTimeoutError(AgentError):
    """The time that the job at hand may take is over."""

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__(f"the job did not end within {timeout_seconds:g} s")
        self.timeout_seconds = timeout_seconds


class WorkerCrashedError(AgentError):
    """A worker process ended without a usable answer."""


class BadAnswerError(AgentError):
    """Text that should describe an outcome does not."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"this does not describe an outcome: {problem}")
        self.problem = problem


class SensorUnavailableError(AgentError):
    """A sensor that cannot be read here; the text is the reason."""
