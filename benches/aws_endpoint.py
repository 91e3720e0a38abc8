"""Answers what the functions ask of AWS, over TLS, at once and as if all was well."""

import collections
import contextlib
import json
import socket
import ssl
import threading
from pathlib import Path
from typing import Self

import certifi

from benches.http1 import Connection, Request
from local.client import ROOT
from local.ecr.authority import Authority

INSTANCE = json.loads((ROOT / "events/node-launch.running.json").read_text())["detail"]["instance-id"]

JSON_ANSWERS = {
    "AmazonSSM.SendCommand": {"Command": {"CommandId": "11111111-2222-3333-4444-555555555555", "Status": "Pending"}},
    "AmazonSSM.DescribeInstanceInformation": {
        "InstanceInformationList": [{"InstanceId": INSTANCE, "PingStatus": "Online", "PlatformType": "Linux"}]
    },
    "AmazonEC2ContainerRegistry_V20150921.DescribeRepositories": {"repositories": [{"repositoryName": "team/app"}]},
    "AmazonEC2ContainerRegistry_V20150921.DescribeImages": {
        "imageDetails": [
            {
                "registryId": "123456789012",
                "repositoryName": "team/app",
                "imageDigest": "sha256:" + "7" * 64,
                "imageTags": ["v1.4.2"],
                "imagePushedAt": 1763690400.0,
                "imageManifestMediaType": "application/vnd.oci.image.manifest.v1+json",
                "artifactMediaType": "application/vnd.oci.image.config.v1+json",
            }
        ]
    },
}

EMPTY = {
    "DynamoDB_20120810.BatchGetItem": {"Responses": {}, "UnprocessedKeys": {}},
    "DynamoDB_20120810.TransactWriteItems": {},
    "DynamoDB_20120810.DeleteItem": {},
}
"""A table in which nothing stands yet, and that takes whatever is written."""

REPORT = {
    "image": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/app:v1.4.2@sha256:" + "7" * 64,
    "digest": "sha256:" + "7" * 64,
    "status": "pulled",
    "reason": "",
    "seconds": 2.345,
    "bytes": 123456789,
    "attempts": 1,
}
INVOCATION = {
    "Comment": "push rule=default attempt=1",
    "DocumentName": "eks-image-prefetch-prefetch-images",
    "PluginName": "prefetch",
    "ResponseCode": 0,
    "ExecutionStartDateTime": "2026-01-02T03:04:05.000Z",
    "ExecutionEndDateTime": "2026-01-02T03:04:08.000Z",
    "Status": "Success",
    "StatusDetails": "Success",
    "StandardOutputContent": json.dumps(REPORT) + "\n",
    "StandardErrorContent": "",
}

DESCRIBE_INSTANCES = f"""<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>bench</requestId><reservationSet>
<item><reservationId>r-1</reservationId><ownerId>123456789012</ownerId><instancesSet><item>
<instanceId>{INSTANCE}</instanceId><instanceState><code>16</code><name>running</name></instanceState>
<launchTime>2026-01-01T00:00:00.000Z</launchTime>
<tagSet><item><key>aws:eks:cluster-name</key><value>prod</value></item></tagSet>
</item></instancesSet></item></reservationSet></DescribeInstancesResponse>""".encode()


class AwsEndpoint:
    """Serves on loopback under a private certificate authority, a thread for each connection."""

    def __init__(self, folder: Path):
        authority = Authority(folder / "ca")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*authority.issue("endpoint", ["localhost"], ["127.0.0.1"]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        # The authority amid the public ones: reading them all is part of a cold start.
        self.trust = folder / "trust.pem"
        self.trust.write_text(Path(certifi.where()).read_text() + authority.certificate.read_text())
        self.commands: list[dict] = []
        """Every SendCommand so far."""
        self.calls: collections.Counter[str] = collections.Counter()
        """Says how often each operation was called so far."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def url(self) -> str:
        """Returns the endpoint's address."""
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def environment(self) -> dict[str, str]:
        """Returns what sends an SDK here."""
        trust = str(self.trust)
        return {"AWS_ENDPOINT_URL": self.url, "AWS_CA_BUNDLE": trust, "SSL_CERT_FILE": trust}

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the function was killed
            connection = Connection(self._context.wrap_socket(plain, server_side=True))
            while request := connection.read():
                connection.answer(*self._answer(request))

    def _answer(self, request: Request) -> tuple[str, str, bytes]:
        if request.method == "PUT":
            self.calls["S3.PutObject"] += 1
            return "200 OK", "application/xml", b""
        operation = request.headers.get("x-amz-target", "EC2.DescribeInstances")
        self.calls[operation] += 1
        if operation == "AmazonSSM.SendCommand":
            self.commands.append(json.loads(request.body))
        answer = self.answer_to(operation, request.body)
        if isinstance(answer, bytes):
            return "200 OK", "text/xml;charset=UTF-8", answer
        return "200 OK", "application/x-amz-json-1.1", json.dumps(answer).encode()

    def answer_to(self, operation: str, body: bytes) -> dict | bytes:
        """Returns what an operation is answered with: JSON, or text of XML."""
        if operation == "EC2.DescribeInstances":
            return DESCRIBE_INSTANCES
        if operation == "AmazonSSM.GetCommandInvocation":
            return INVOCATION | json.loads(body)
        return EMPTY.get(operation) or JSON_ANSWERS.get(operation, {})
