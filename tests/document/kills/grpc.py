"""Calls the services of containerd over one connection, for a program that starts for each call takes too long here."""

import socket
from collections import defaultdict
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

Fields = dict[int, list]
"""Holds the values of a protobuf message's fields by their numbers: numbers and bytes."""
PIECE = 1 << 16
LIMIT_SECONDS = 60


class Client:
    """A connection to a socket on which gRPC is spoken."""

    def __init__(self, place: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(LIMIT_SECONDS)
        self._socket.connect(str(place))
        self._connection = H2Connection(H2Configuration(client_side=True))
        self._connection.initiate_connection()

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()

    def call(self, method: str, request: bytes = b"") -> list[Fields]:
        """Calls a method and returns the messages of its answer; raises where it fails."""
        stream = self._connection.get_next_available_stream_id()
        headers = {":method": "POST", ":path": method, ":scheme": "http", ":authority": "localhost"}
        headers |= {"content-type": "application/grpc", "te": "trailers", "containerd-namespace": "k8s.io"}
        self._connection.send_headers(stream, list(headers.items()))
        frame = b"\0" + len(request).to_bytes(4, "big") + request
        self._connection.send_data(stream, frame, end_stream=True)
        answer, trailers = self._answer(stream)
        if trailers.get(b"grpc-status") != b"0":
            raise RuntimeError(f"{method}: {trailers}")
        return messages(answer)

    def _answer(self, stream: int) -> tuple[bytes, dict[bytes, bytes]]:
        answer, trailers, has_ended = b"", {}, False
        while not has_ended:
            self._socket.sendall(self._connection.data_to_send())
            received = self._socket.recv(PIECE)
            if not received:
                raise RuntimeError("containerd has closed the connection")
            for event in self._connection.receive_data(received):
                if isinstance(event, DataReceived):
                    answer += event.data
                    self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, ResponseReceived | TrailersReceived):
                    trailers |= dict(event.headers)
                elif isinstance(event, StreamEnded | StreamReset) and event.stream_id == stream:
                    has_ended = True
        return answer, trailers


def messages(frames: bytes) -> list[Fields]:
    """Returns the messages in gRPC's frames."""
    found = []
    while frames:
        end = 5 + int.from_bytes(frames[1:5], "big")
        found.append(fields(frames[5:end]))
        frames = frames[end:]
    return found


def fields(message: bytes) -> Fields:
    """Returns the fields of a message."""
    found: Fields = defaultdict(list)
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        value, position = _varint(message, position)
        if key & 7 == 2:
            value, position = message[position : position + value], position + value
        found[key >> 3].append(value)
    return found


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def texts(message: Fields, number: int) -> list[str]:
    """Returns the texts of a field."""
    return [value.decode() for value in message[number]]


def labels(message: Fields, number: int) -> dict[str, str]:
    """Returns a map of texts."""
    entries = [fields(entry) for entry in message[number]]
    return {"".join(texts(entry, 1)): "".join(texts(entry, 2)) for entry in entries}


def nested(number: int, content: bytes) -> bytes:
    """Encodes a message, of at most 16,383 bytes, as a field."""
    return bytes([number << 3 | 2, len(content) & 0x7F | 0x80, len(content) >> 7]) + content


def text(number: int, content: str) -> bytes:
    """Encodes a text as a field."""
    return nested(number, content.encode())
