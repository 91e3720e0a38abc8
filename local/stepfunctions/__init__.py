"""Replaces how ministack's Step Functions checks and executes state machines."""
