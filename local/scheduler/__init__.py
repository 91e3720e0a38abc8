"""Replaces ministack's EventBridge Scheduler."""
