"""Has CloudFormation make the routes and integrations that an HTTP API's OpenAPI body names."""

import uuid

from local.ministack import apigateway

INTEGRATION_SECONDS = 30
"""Says how long a function may take (API Gateway, quotas of HTTP APIs)."""


METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch"})


ANY = "x-amazon-apigateway-any-method"


def import_body(api: str, properties: dict) -> None:
    """Makes the routes and integrations that an OpenAPI body names, in the place of those before."""
    body = properties.get("Body")
    if body is None:
        return
    routes, integrations = {}, {}
    for path, item in body.get("paths", {}).items():
        for method, operation in item.items():
            if method not in METHODS and method != ANY:
                continue
            key = "$default" if path == "/$default" else f"{'ANY' if method == ANY else method.upper()} {path}"
            target = uuid.uuid4().hex[:7]
            integrations[target] = _integration(key, target, operation)
            route = uuid.uuid4().hex[:7]
            routes[route] = {
                "routeId": route,
                "routeKey": key,
                "target": f"integrations/{target}",
                "authorizationType": _authorization(key, operation, body),
                "apiKeyRequired": False,
            }
    apigateway._routes[api], apigateway._integrations[api] = routes, integrations


def _integration(key: str, id_: str, operation: dict) -> dict:
    described = operation.get("x-amazon-apigateway-integration")
    if not described or described.get("type", "").lower() != "aws_proxy":
        raise ValueError(f"The local cloud invokes functions only, and route {key} has no aws_proxy integration.")
    if described.get("payloadFormatVersion") != "2.0":
        raise ValueError(f"Route {key}: the local cloud knows payload format 2.0 only.")
    return {
        "integrationId": id_,
        "integrationType": "AWS_PROXY",
        "integrationUri": described["uri"],
        "payloadFormatVersion": "2.0",
        "timeoutInMillis": int(described.get("timeoutInMillis", INTEGRATION_SECONDS * 1000)),
    }


def _authorization(key: str, operation: dict, body: dict) -> str:
    schemes = body.get("components", {}).get("securitySchemes", {})
    requirements = operation.get("security", body.get("security", []))
    names = [name for requirement in requirements for name in requirement if name != "NONE"]  # as SAM says it
    for name in names:
        if schemes.get(name, {}).get("x-amazon-apigateway-authtype") != "awsSigv4":
            raise ValueError(f"Route {key}: the local cloud knows no authorizer {name}.")
    return "AWS_IAM" if names else "NONE"
