"""How errors are told to agents: a status that says whether to try again, and a sentence."""

import functools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Never, Protocol, TypeVar
from urllib.parse import unquote

from grpc import StatusCode

from host.errors import GenbaError
from host.gateway.checks import MessageError
from host.gateway.gate import BusyError
from host.pki import CsrError
from host.store import (
    BlobMismatchError,
    KeyInUseError,
    SessionSupersededError,
    TokenError,
    UnknownBlobError,
    UnknownDeviceError,
    UnknownJobError,
)

_log = logging.getLogger("genba.gateway")


class NotEnrolledError(GenbaError):
    """The caller's key is not, or no longer, on the list."""


class ProtocolMismatchError(GenbaError):
    """Agent and host have no protocol version in common."""


class SessionError(GenbaError):
    """The caller has not opened a session since it was enrolled."""


class BlobForbiddenError(GenbaError):
    """The caller holds no lease that names this file."""


class OffsetError(GenbaError):
    """That offset is not where the file goes on."""


class OutputsForbiddenError(GenbaError):
    """The caller holds no lease under which it may send this file."""


_STATUS: dict[type[GenbaError], StatusCode] = {
    NotEnrolledError: StatusCode.UNAUTHENTICATED,
    UnknownDeviceError: StatusCode.UNAUTHENTICATED,
    TokenError: StatusCode.UNAUTHENTICATED,
    KeyInUseError: StatusCode.ALREADY_EXISTS,
    CsrError: StatusCode.INVALID_ARGUMENT,
    MessageError: StatusCode.INVALID_ARGUMENT,
    ProtocolMismatchError: StatusCode.FAILED_PRECONDITION,
    SessionError: StatusCode.FAILED_PRECONDITION,
    SessionSupersededError: StatusCode.FAILED_PRECONDITION,
    BlobForbiddenError: StatusCode.PERMISSION_DENIED,
    OutputsForbiddenError: StatusCode.PERMISSION_DENIED,
    OffsetError: StatusCode.OUT_OF_RANGE,
    BlobMismatchError: StatusCode.DATA_LOSS,
    UnknownJobError: StatusCode.NOT_FOUND,
    UnknownBlobError: StatusCode.NOT_FOUND,
    BusyError: StatusCode.RESOURCE_EXHAUSTED,
}


def status_of(error: GenbaError) -> StatusCode:
    """How an error is told to an agent; what is not listed may pass, so it may try again."""
    kinds = (_STATUS.get(kind) for kind in type(error).__mro__)
    return next((status for status in kinds if status is not None), StatusCode.UNAVAILABLE)


class Context(Protocol):
    """What the services use of gRPC's context of a call."""

    def auth_context(self) -> Any: ...
    def peer(self) -> str: ...
    async def abort(self, code: StatusCode, details: str = "") -> Never: ...


Servicer = TypeVar("Servicer")
Request = TypeVar("Request")
Reply = TypeVar("Reply")


def unary(
    method: Callable[[Servicer, Request, Context], Awaitable[Reply]],
) -> Callable[[Servicer, Request, Context], Awaitable[Reply]]:
    """A method whose errors are told to the agent."""

    @functools.wraps(method)
    async def answered(self: Servicer, request: Request, context: Context) -> Reply:
        try:
            return await method(self, request, context)
        except GenbaError as error:
            await _refuse(context, error, method.__name__)

    return answered


def streaming(
    method: Callable[[Servicer, Request, Context], AsyncGenerator[Reply]],
) -> Callable[[Servicer, Request, Context], AsyncGenerator[Reply]]:
    """A method with a stream of replies whose errors are told to the agent."""

    @functools.wraps(method)
    async def answered(self: Servicer, request: Request, context: Context) -> AsyncGenerator[Reply]:
        try:
            async with aclosing(method(self, request, context)) as replies:
                async for reply in replies:
                    yield reply
        except GenbaError as error:
            await _refuse(context, error, method.__name__)

    return answered


def address_of(context: Context) -> str:
    """The address and port that the call came from."""
    family, _, address = unquote(context.peer()).partition(":")
    return address if family in ("ipv4", "ipv6") else context.peer()


async def _refuse(context: Context, error: GenbaError, method: str) -> Never:
    status = status_of(error)
    _log.warning("%s refused to %s: %s: %s", method, address_of(context), status.name, error)
    await context.abort(status, str(error))
