"""Changes functions: their environment and metrics as on AWS, which of them calls AWS, and their sudden end."""

import json
import os
import time
from collections.abc import Callable

from local.iam import permissions
from local.ministack import cloudwatch, cloudwatch_logs, lambda_runtime, lambda_svc, provisioners
from local.settings import ACCOUNT, MAX_ENVIRONMENT, REGION

_worker_environment = lambda_svc._provided_worker_env
_run = lambda_svc._execute_function_dispatch
_emit_metrics = lambda_svc._emit_lambda_metrics
_emit_logs = lambda_svc._emit_lambda_logs

_by_access_key: dict[str, str] = {}


def install() -> None:
    """Replaces the environment ministack gives to `provided` runtimes, and how invocations are measured and logged."""
    lambda_svc._provided_worker_env = _environment
    lambda_svc._execute_function_dispatch = _measured
    lambda_svc._emit_lambda_metrics = _emit_throttles
    lambda_svc._emit_lambda_logs = _emit_permitted_logs
    handlers = provisioners._RESOURCE_HANDLERS["AWS::Lambda::Function"]
    handlers |= {"create": _measuring(handlers["create"], 1), "update": _measuring(handlers["update"], 2)}


def caller(access_key: str) -> str | None:
    """Returns the function, or the state machine, that runs under an access key, None for anybody else."""
    return _by_access_key.get(access_key)


def know(access_key: str, name: str) -> None:
    """Takes note of who runs under an access key."""
    _by_access_key[access_key] = name


def kill(function: str) -> None:
    """Kills every process of the function that is at work."""
    with lambda_runtime._lock:
        workers = [worker for workers in lambda_runtime._workers.values() for worker in workers]
    for worker in workers:
        if worker.func_name == function and worker.in_use and worker._proc:
            worker._proc.kill()


def _measuring(provision: Callable, place: int) -> Callable:
    """Has a stack's function refused whose environment, among the properties at that place, is too large for Lambda."""

    def measured(*arguments):
        variables = arguments[place].get("Environment", {}).get("Variables", {})
        text = json.dumps({name: str(value) for name, value in variables.items()}, separators=(",", ":"))
        if len(text) > MAX_ENVIRONMENT:
            message = "Lambda was unable to configure your environment variables because the environment variables you"
            raise ValueError(
                f"{message} have provided exceeded the 4KB limit. String measured: {text}"
                " (Service: Lambda, Status Code: 400)"
            )
        return provision(*arguments)

    return measured


def _environment(config: dict, code: str, port: int) -> dict[str, str]:
    declared = config.get("Environment", {}).get("Variables", {})
    servers_own = os.environ.keys() - {"AWS_ENDPOINT_URL", "PATH", *declared}
    environment = {
        name: value for name, value in _worker_environment(config, code, port).items() if name not in servers_own
    }
    know(environment["AWS_ACCESS_KEY_ID"], config["FunctionName"])
    logging = config.get("LoggingConfig") or {}
    return environment | {
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_FORMAT": logging.get("LogFormat", "Text"),
        "AWS_LAMBDA_LOG_GROUP_NAME": logging.get("LogGroup", f"/aws/lambda/{config['FunctionName']}"),
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        **({"AWS_LAMBDA_LOG_LEVEL": logging["ApplicationLogLevel"]} if "ApplicationLogLevel" in logging else {}),
    }


def _measured(function: dict, config: dict, event: dict, request_id: str, started: float) -> dict:
    """Runs a function, however it was called, and measures it as Lambda does."""
    result = _run(function, config, event, request_id, started)
    milliseconds = (time.time() - started) * 1000
    _emit_metrics(config["FunctionName"], milliseconds, error=bool(result.get("error")), throttle=False)
    cloudwatch._evaluate_all_alarms()
    return result


def _emit_throttles(name: str, duration_ms: float, error: bool, throttle: bool) -> None:
    if throttle:
        _emit_metrics(name, duration_ms, error=error, throttle=True)


def _emit_permitted_logs(function: dict, *arguments, **options) -> None:
    """Writes a function's log where its group is there, or its role may make one: a stack's deletion leaves none."""
    config = function.get("config") or function
    group = (config.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{config['FunctionName']}"
    arn = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}"
    if group in cloudwatch_logs._log_groups or permissions.role_may(config["Role"], "logs:CreateLogGroup", arn):
        _emit_logs(function, *arguments, **options)
