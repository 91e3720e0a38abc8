"""IAM where ministack checks another action or resource than AWS: SSM documents and instances, ECR, EC2 reads, SQS."""

import json

from ministack import app as ministack
from ministack.core import iam_actions
from ministack.core.iam_actions import identity_denial_message
from ministack.core.iam_evaluator import AuthError, enforce, pin_request_origin
from ministack.core.router import extract_access_key_id

from local import documents
from local.api import ApiError
from local.settings import ACCOUNT, REGION

DOCUMENT_FIELDS = {
    "SendCommand": "DocumentName",
    **dict.fromkeys(documents.OPERATIONS, "Name"),
    **dict.fromkeys(documents.TAG_OPERATIONS, "ResourceId"),
}

SQS_BATCHES = {
    f"sqs:{action}Batch": f"sqs:{action}" for action in ("SendMessage", "DeleteMessage", "ChangeMessageVisibility")
}
"""Operations that are allowed by the action of the single operation (SQS, API permissions)."""

_extract_resource_arn = iam_actions.extract_resource_arn
_extract_action = iam_actions.extract_iam_action


class Caller:
    """Who signed a request, for checks on more than one resource."""

    def __init__(self, headers: dict, query: dict):
        self.access_key = extract_access_key_id(headers, query)

    def require(self, action: str, resource: str, tags: dict[str, str]) -> None:
        """Raises AccessDeniedException unless the caller's policies allow the action on the tagged resource."""
        service = action.partition(":")[0]
        context = {f"{prefix}:resourceTag/{key}": tags[key] for prefix in ("aws", service) for key in tags}
        denial = enforce(self.access_key, action, service, REGION, resource, context)
        if isinstance(denial, AuthError):
            raise ApiError(denial.code, denial.message)
        if denial:
            explicit = denial.decision == "Deny"
            message = identity_denial_message(action, denial.principal_arn, resource, explicit)
            raise ApiError("AccessDeniedException", message)


def install() -> None:
    """Names the resource that AWS checks for the actions this project uses."""
    # The endpoint stands for AWS's, which speaks TLS, wherever a policy asks (aws:SecureTransport).
    ministack.pin_request_origin = lambda address, _: pin_request_origin(address, secure_transport=True)
    iam_actions.extract_resource_arn = _resource_arn
    iam_actions.extract_iam_action = _action


def _action(service, method, path, headers, body, query) -> str | None:
    action = _extract_action(service, method, path, headers, body, query)
    return SQS_BATCHES.get(action, action)


def _resource_arn(service, method, path, headers, body, query, region, account) -> str:
    action = headers.get("x-amz-target", "").rpartition(".")[2]
    request = json.loads(body or "{}") if action else {}
    if service == "ssm" and action in DOCUMENT_FIELDS and request.get("ResourceType", "Document") == "Document":
        return _document_arn(request.get(DOCUMENT_FIELDS[action], ""))
    if service == "ecr" and action == "DescribeRepositories" and not request.get("repositoryNames"):
        return f"arn:aws:ecr:{region}:{account}:repository/*"
    if service == "ec2" and query.get("Action", [""])[0].startswith("Describe"):
        return "*"
    return _extract_resource_arn(service, method, path, headers, body, query, region, account)


def _document_arn(name: str) -> str:
    if name.startswith("arn:"):
        return name
    owner = "" if name.startswith("AWS-") else ACCOUNT
    return f"arn:aws:ssm:{REGION}:{owner}:document/{name}"
