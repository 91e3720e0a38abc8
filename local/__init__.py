"""Extends an emulated AWS (ministack) by a real OCI registry, nodes that really run the commands, and what it lacks."""
