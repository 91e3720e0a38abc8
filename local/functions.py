"""The environment of a Lambda function: what Lambda sets, what the template says, and nothing of the server's."""

import os

from ministack.services import lambda_svc

_worker_environment = lambda_svc._provided_worker_env


def install() -> None:
    """Replaces the environment ministack gives to `provided` runtimes."""
    lambda_svc._provided_worker_env = _environment


def _environment(config: dict, code: str, port: int) -> dict[str, str]:
    declared = config.get("Environment", {}).get("Variables", {})
    servers_own = os.environ.keys() - {"AWS_ENDPOINT_URL", "PATH", *declared}
    environment = {
        name: value for name, value in _worker_environment(config, code, port).items() if name not in servers_own
    }
    logging = config.get("LoggingConfig") or {}
    return environment | {
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_FORMAT": logging.get("LogFormat", "Text"),
        "AWS_LAMBDA_LOG_GROUP_NAME": logging.get("LogGroup", f"/aws/lambda/{config['FunctionName']}"),
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        **({"AWS_LAMBDA_LOG_LEVEL": logging["ApplicationLogLevel"]} if "ApplicationLogLevel" in logging else {}),
    }
