"""Replaces ministack's ECR by a real registry, with AWS's API, login and events over it."""
