"""Holds the commands that make runs for a developer, one module each."""
