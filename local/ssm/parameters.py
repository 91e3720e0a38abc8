"""Adds to Parameter Store the limits of its tiers, AWS's public parameters, and permission for each deletion."""

import json

from local.api import ApiError
from local.ec2 import amis
from local.iam.permissions import PUBLIC_PARAMETERS, Caller
from local.ministack import ssm
from local.settings import ACCOUNT, REGION

LIMITS = {"Standard": 4096, "Advanced": 8192}
"""Characters of a parameter's value (Parameter Store, parameter tiers)."""
MAX_LEVELS = 15
"""Levels of a name (PutParameter, Name)."""


def put(request: dict) -> dict:
    """PutParameter; Intelligent-Tiering takes the tier that the value needs, and none becomes a lesser one."""
    name, value = request["Name"], request["Value"]
    if name.count("/") > MAX_LEVELS:
        message = f"Hierarchies may have a maximum of {MAX_LEVELS} levels."
        raise ApiError("HierarchyLevelLimitExceededException", message)
    if not value:
        raise ApiError("ValidationException", "Value '' at 'value' failed to satisfy constraint: not empty")
    if "{{" in value and "}}" in value:
        message = 'Parameter value: can\'t nest another parameter. Do not use "{{}}" in the value'
        raise ApiError("ValidationException", message)
    before = ssm._parameters.get(name, {}).get("Tier", "Standard")
    tier = request.get("Tier", before)
    if tier == "Intelligent-Tiering":
        tier = "Advanced" if before == "Advanced" or len(value.encode()) > LIMITS["Standard"] else "Standard"
    if before == "Advanced" and tier == "Standard":
        message = "This parameter uses the advanced-parameter tier. You can't downgrade a parameter from the advanced"
        raise ApiError("ValidationException", f"{message}-parameter tier to the standard-parameter tier.")
    if len(value.encode()) > LIMITS[tier]:
        message = f"{tier} tier parameters support a maximum parameter value of {LIMITS[tier]} characters."
        raise ApiError("ValidationException", message)
    return _answered(ssm._put_parameter({**request, "Tier": tier}))


def get(request: dict) -> dict:
    """GetParameter."""
    name = request["Name"]
    if not name.startswith(PUBLIC_PARAMETERS):
        return _answered(ssm._get_parameter(request))
    if parameter := amis.parameter(name):
        return {"Parameter": parameter}
    raise ApiError("ParameterNotFound", f"Parameter {name} not found.")


def get_several(request: dict, caller: Caller) -> dict:
    """GetParameters."""
    for name in request["Names"]:
        caller.require("ssm:GetParameters", arn(name), {})
    public = {name: amis.parameter(name) for name in request["Names"] if name.startswith(PUBLIC_PARAMETERS)}
    answer = _answered(ssm._get_parameters({**request, "Names": [*(set(request["Names"]) - public.keys())]}))
    return {
        "Parameters": [*answer["Parameters"], *(parameter for parameter in public.values() if parameter)],
        "InvalidParameters": [*answer["InvalidParameters"], *(name for name in public if not public[name])],
    }


def delete(request: dict, caller: Caller) -> dict:
    """DeleteParameters."""
    for name in request["Names"]:
        caller.require("ssm:DeleteParameters", arn(name), {})
    return _answered(ssm._delete_parameters(request))


OPERATIONS = {"PutParameter": put, "GetParameter": get}
PLURAL_OPERATIONS = {"GetParameters": get_several, "DeleteParameters": delete}
"""Operations on several parameters, which check each for the caller."""


def arn(name: str) -> str:
    """Returns a parameter's ARN; a public one belongs to no account."""
    owner = "" if name.startswith(PUBLIC_PARAMETERS) else ACCOUNT
    return f"arn:aws:ssm:{REGION}:{owner}:parameter/{name.lstrip('/')}"


def _answered(response: tuple) -> dict:
    status, _, body = response
    answer = json.loads(body)
    if status != 200:
        raise ApiError(answer["__type"], answer.get("message") or answer.get("Message", ""))
    return answer
