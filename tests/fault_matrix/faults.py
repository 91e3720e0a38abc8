"""Lists the ways in which a call of AWS fails, and how each service says so."""

import json
import struct
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET, socket

Answer = tuple[str, str, bytes]
"""Holds the status, the content type and the body of an answer."""

SLOW_SECONDS = 5
JSON = "application/x-amz-json-1.1"
XML = "text/xml"
QUERY = ("autoscaling", "ec2", "s3")
"""Names the services that answer in XML."""


@dataclass(frozen=True)
class Fault:
    """One way to fail, and the words of which one says in a log or an error that it was this."""

    name: str
    words: tuple[str, ...]
    status: str = ""
    code: str = ""
    codes: tuple[tuple[str, str], ...] = ()
    is_done: bool = False
    """Says whether the call is carried out for all that."""

    def answer(self, service: str) -> Answer:
        """Returns the error in the form of the service."""
        code = dict(self.codes).get(service, self.code)
        status = "400 Bad Request" if self.name == "throttled" and service not in QUERY else self.status
        if service in QUERY:
            error = f"<Error><Code>{code}</Code><Message>It was made to fail.</Message></Error>"
            wrapped = {"ec2": f"<Response><Errors>{error}</Errors></Response>", "s3": error}
            return status, XML, wrapped.get(service, f"<ErrorResponse>{error}</ErrorResponse>").encode()
        return status, JSON, json.dumps({"__type": code, "message": "It was made to fail."}).encode()

    @property
    def is_in_doubt(self) -> bool:
        """Tells whether a caller cannot know that the call was carried out."""
        return self.is_done and self.name != "slow"


FAULTS = (
    Fault(
        "throttled",
        ("ThrottlingException", "RequestLimitExceeded", "SlowDown"),
        "503 Service Unavailable",
        "ThrottlingException",
        (("ec2", "RequestLimitExceeded"), ("s3", "SlowDown")),
    ),
    Fault("500", ("InternalServerError",), "500 Internal Server Error", "InternalServerError"),
    Fault("503", ("ServiceUnavailable",), "503 Service Unavailable", "ServiceUnavailable"),
    Fault("timeout", ()),
    Fault("reset", ("dispatch failure", "connection"), is_done=True),
    Fault("slow", ('"unfinished": true',), is_done=True),
    Fault(
        "denied",
        ("AccessDenied", "UnauthorizedOperation"),
        "400 Bad Request",
        "AccessDeniedException",
        (("ec2", "UnauthorizedOperation"), ("s3", "AccessDenied")),
    ),
    Fault("garbage", ("response error", "unhandled error", "is no manifest"), is_done=True),
)
GARBAGE: Answer = ("200 OK", JSON, b"\x00<{garbage")
TIME_IS_UP = ("timed out", "no time left", "takes long", "could not be listed in")
"""Lists the words of a call that the invocation's end has ended, whatever its tries before had met."""
FOR_EVER = 1 << 30
TIMES = {"once": 1, "three times": 3, "for ever": FOR_EVER}


@dataclass(frozen=True, order=True)
class Call:
    """One call of a scenario: the n-th of its operation."""

    service: str
    operation: str
    number: int

    def __str__(self) -> str:
        return f"{self.service}:{self.operation}" + (f" {self.number}" if self.number > 1 else "")


def reset(connection: socket) -> None:
    """Ends a connection so that its other side sees a reset."""
    connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
