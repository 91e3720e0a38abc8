"""Extends ministack's EventBridge by AWS's own events, permissions, retries and dead letters."""
