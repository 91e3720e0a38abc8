"""Decides whether a state is retried, and when, by its retriers."""

import random

RETRIES = {"IntervalSeconds": 1, "MaxAttempts": 3, "BackoffRate": 2.0}
"""Says what a retrier does that says nothing (Amazon States Language, Retry)."""


UNCAUGHT = ("States.Runtime", "States.DataLimitExceeded")
"""Errors that States.ALL stands not for (Step Functions, error names)."""


def delay(retriers: list[dict], error: str, counts: dict[int, int]) -> float | None:
    """Returns the seconds before the next try, None where there is none; the first retrier that matches counts."""
    for index, retrier in enumerate(retriers):
        if matches(retrier["ErrorEquals"], error):
            retrier = {**RETRIES, **retrier}
            tries = counts.get(index, 0)
            if tries >= retrier["MaxAttempts"]:
                return None
            counts[index] = tries + 1
            seconds = retrier["IntervalSeconds"] * retrier["BackoffRate"] ** tries
            seconds = min(seconds, retrier.get("MaxDelaySeconds", seconds))
            return random.uniform(0, seconds) if retrier.get("JitterStrategy") == "FULL" else seconds
    return None


def matches(names: list[str], error: str) -> bool:
    """Tells whether an error is among those that a retrier or a catcher names."""
    if error in UNCAUGHT:
        return error in names and error != "States.Runtime"
    return error in names or "States.ALL" in names or ("States.TaskFailed" in names and error != "States.Timeout")
