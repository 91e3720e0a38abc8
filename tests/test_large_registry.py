"""A registry of 400 repositories with 1,000 images each: what node-launch takes for it, also where ECR throttles."""

import json
import threading
import time
from pathlib import Path

import pytest

from benches.aws_endpoint import AwsEndpoint
from benches.runtime_api import Function, environment
from local.client import ROOT
from local.stack import TEMPLATE

REPOSITORIES = [f"team/app-{number:03}" for number in range(400)]
IMAGES = 1000
MEMORY_MB = 100
"""The function has 128."""
CALLS_A_SECOND = 20
MOST_DELIVERIES = 30
"""After as many a message is in the dead-letter queue."""
LAUNCH = json.loads((ROOT / "events/node-launch.sqs-one.json").read_text())
ECR = "AmazonEC2ContainerRegistry_V20150921"


class Registry(AwsEndpoint):
    """An endpoint behind which there are many images, and that throttles who asks too often."""

    def __init__(self, folder: Path, images: int, calls_a_second: float = float("inf")):
        super().__init__(folder)
        self.calls_a_second = calls_a_second
        self.throttled = 0
        self._page = {"imageDetails": [image(number, images) for number in range(images)]}
        self._taken: list[float] = []
        self._lock = threading.Lock()

    def answer_to(self, operation: str, body: bytes) -> dict | bytes:
        """Answers what ECR would, or a launch's other questions."""
        if operation == f"{ECR}.DescribeRepositories":
            return {"repositories": [{"repositoryName": name} for name in REPOSITORIES]}
        if operation == f"{ECR}.DescribeImages":
            return self._page
        return super().answer_to(operation, body)

    def _answer(self, request) -> tuple[str, str, bytes]:
        if request.headers.get("x-amz-target") == f"{ECR}.DescribeImages" and not self._may_ask():
            self.throttled += 1
            error = {"__type": "ThrottlingException", "message": "Rate exceeded"}
            return "400 Bad Request", "application/x-amz-json-1.1", json.dumps(error).encode()
        return super()._answer(request)

    def _may_ask(self) -> bool:
        with self._lock:
            now = time.monotonic()
            self._taken = [taken for taken in self._taken if taken > now - 1]
            if len(self._taken) >= self.calls_a_second:
                return False
            self._taken.append(now)
            return True


@pytest.mark.timeout(300)
def test_a_launch_takes_no_more_memory_than_its_rules_can_want(tmp_path):
    with Registry(tmp_path, IMAGES) as registry:
        named, memory, _ = launched(registry, tmp_path)
    assert named == {f"{name}:v{IMAGES - 1}" for name in REPOSITORIES}
    assert memory < MEMORY_MB, f"{memory:.0f} MB"


def test_a_scan_that_ecr_throttles_gets_to_its_end(tmp_path):
    with Registry(tmp_path, 2, CALLS_A_SECOND) as registry:
        named, _, deliveries = launched(registry, tmp_path)
        assert registry.throttled > 0
    assert named == {f"{name}:v1" for name in REPOSITORIES}
    assert 1 < deliveries < 10


def launched(registry: Registry, folder: Path) -> tuple[set[str], float, int]:
    """Delivers a launch until it is not handed back; returns the names sent, the peak of memory, and the deliveries."""
    command = [TEMPLATE.parent / "NodeLaunch/bootstrap"]
    with Function(command, environment({"maxImageGiB": 0}, **registry.environment()), folder / "log") as function:
        deliveries = 0
        handed_back = True
        while handed_back and deliveries < MOST_DELIVERIES:
            registry.commands.clear()
            handed_back = function.invoke(json.dumps(LAUNCH).encode()).answer["batchItemFailures"]
            deliveries += 1
        memory = function.peak_memory() / 1e6
    images = [image for command in registry.commands for image in command["Parameters"]["images"][0].split(" ")]
    return {image.partition("/")[2].partition("@")[0] for image in images}, memory, deliveries


def image(number: int, images: int) -> dict:
    """Returns an image as ECR tells of it."""
    return {
        "registryId": "123456789012",
        "repositoryName": "team/app",
        "imageDigest": f"sha256:{number:064x}",
        "imageTags": [f"v{number}", f"main-{number:07x}", f"build-{number}"][: 1 if number == images - 1 else 3],
        "imageSizeInBytes": 123456789,
        "imagePushedAt": 1763690400.0 + number,
        "imageManifestMediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactMediaType": "application/vnd.oci.image.config.v1+json",
        "imageScanStatus": {"status": "COMPLETE", "description": "The scan was completed successfully."},
        "imageScanFindingsSummary": {
            "imageScanCompletedAt": 1763690400.0,
            "vulnerabilitySourceUpdatedAt": 1763690400.0,
            "findingSeverityCounts": {"HIGH": 12, "MEDIUM": 34, "LOW": 56},
        },
        "lastRecordedPullTime": 1763690400.0,
        "imageStatus": "ACTIVE",
    }
