"""Corrects and extends ministack's IAM: what is checked for which call, boundaries, simulation."""
