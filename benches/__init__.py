"""Measures the claims of the README, each beside its rival."""
