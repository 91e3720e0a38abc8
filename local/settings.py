"""Holds what every part of the local cloud agrees on: account, Region, names, how fast AWS's waiting passes."""

import os

ACCOUNT = "123456789012"
REGION = "eu-central-1"
REGISTRY_HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
FOREIGN_REGISTRY_HOST = "quay.io"
"""Names the registry that is not of AWS's and asks for no login."""
CENTRAL_ACCOUNT = "210987654321"
"""Another account, whose repositories are this one's under another name, and let this one read."""
CENTRAL_HOST = f"{CENTRAL_ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"

ACCESS_KEY = "test"
"""The administrator's access key; ministack takes it for the account's root user."""

MAX_ENVIRONMENT = 4096
"""The most bytes that a function's environment takes as JSON (Lambda quotas)."""

TIME_SCALE = float(os.environ.get("LOCAL_TIME_SCALE", "0.02"))
"""Says how much of AWS's waiting (retries, queue delays, delivery timeouts) is really waited; work is never scaled."""

ARE_SCHEDULES_ON = os.environ.get("LOCAL_SCHEDULES", "on") != "off"
"""Off: rules of EventBridge with a schedule fire only where they are told to, as tests want it that count calls."""


def scaled(seconds: float) -> float:
    """Returns the real seconds that stand for a time AWS would wait."""
    return seconds * TIME_SCALE
