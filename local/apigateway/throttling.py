"""Throttles the routes of HTTP APIs by token buckets, as their stage or the account has it."""

import time
from dataclasses import dataclass, field

from local.apigateway.requests import Request

ACCOUNT_RATE, ACCOUNT_BURST = 10_000, 5_000
"""Requests a second, and at once, where a stage says nothing (API Gateway, account-level quotas)."""


_buckets: dict[tuple, "Bucket"] = {}


@dataclass
class Bucket:
    """The tokens of one route's throttling."""

    rate: float
    burst: float
    tokens: float = field(init=False)
    filled: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.tokens = self.burst

    def take(self) -> bool:
        """Takes a token, if there is one."""
        now = time.monotonic()
        self.tokens = min(self.burst, self.tokens + (now - self.filled) * self.rate)
        self.filled = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def bucket(request: Request) -> Bucket:
    settings = dict(request.settings.get("defaultRouteSettings") or {})
    settings |= (request.settings.get("routeSettings") or {}).get(request.route_key, {})
    # A template spells them with a capital, the API without.
    settings = {name.lower(): value for name, value in settings.items()}
    rate = float(settings.get("throttlingratelimit", ACCOUNT_RATE))
    burst = float(settings.get("throttlingburstlimit", ACCOUNT_BURST))
    key = request.api, request.stage, request.route_key, rate, burst
    return _buckets.setdefault(key, Bucket(rate, burst))
