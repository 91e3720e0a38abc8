"""Measures the claims of docs/measured.md, each beside its rival."""
