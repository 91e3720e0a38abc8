"""Serves API Gateway's HTTP APIs as AWS does: OpenAPI routes, IAM, throttling, limits, access logs."""
