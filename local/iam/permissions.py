"""Corrects IAM where ministack checks another action or resource than AWS, and adds what services may do for somebody.

That is: SSM documents and instances, ECR, EC2, Auto Scaling, SQS, Scheduler.
"""

import json
import types
from collections.abc import Mapping
from typing import Any

from local.api import ApiError
from local.ministack import app, dynamodb, iam_actions, iam_evaluator, router
from local.ministack import iam as ministack_iam
from local.settings import ACCOUNT, REGION
from local.ssm import documents

NONE: Mapping[str, Any] = types.MappingProxyType({})

DOCUMENT_FIELDS = {
    "SendCommand": "DocumentName",
    **dict.fromkeys(documents.OPERATIONS, "Name"),
    **dict.fromkeys(documents.TAG_OPERATIONS, "ResourceId"),
}

SQS_BATCHES = {
    f"sqs:{action}Batch": f"sqs:{action}" for action in ("SendMessage", "DeleteMessage", "ChangeMessageVisibility")
}
"""Operations that are allowed by the action of the single operation (SQS, API permissions)."""

PUBLIC_PARAMETERS = "/aws/service/"
"""Parameters of AWS's own, which belong to no account."""

OWN_CHECKS = frozenset(
    {
        "autoscaling:CompleteLifecycleAction",
        "ec2:CreateSnapshot",
        "ec2:CreateTags",
        "ec2:DeleteSnapshot",
        "ec2:DisableFastSnapshotRestores",
        "ec2:EnableFastSnapshotRestores",
        "ec2:RunInstances",
        "ec2:StartInstances",
        "ec2:StopInstances",
        "ec2:TerminateInstances",
        "events:PutEvents",
        "ssm:DeleteParameters",
        "ssm:GetParameters",
    }
)
"""Actions on more than one resource, which check each themselves."""

_extract_resource_arn = iam_actions.extract_resource_arn
_extract_action = iam_actions.extract_iam_action
_dynamodb_context = iam_actions.dynamodb_service_context


class Caller:
    """Says who signed a request, for checks on more than one resource."""

    def __init__(self, headers: dict, query: dict):
        self.access_key = router.extract_access_key_id(headers, query)

    def require(self, action: str, resource: str, tags: Mapping[str, str], keys: Mapping[str, Any] = NONE) -> None:
        """Raises AccessDeniedException unless the caller's policies allow the action on the tagged resource.

        The keys are further ones of the request's context.
        """
        service = action.partition(":")[0]
        context = {f"{prefix}:resourceTag/{key}": tags[key] for prefix in ("aws", service) for key in tags}
        denial = iam_evaluator.enforce(self.access_key, action, service, REGION, resource, {**context, **keys})
        if isinstance(denial, iam_evaluator.AuthError):
            raise ApiError(denial.code, denial.message)
        if denial:
            explicit = denial.decision == "Deny"
            message = iam_actions.identity_denial_message(action, denial.principal_arn, resource, explicit)
            raise ApiError("AccessDeniedException", message)


def install() -> None:
    """Names the resource that AWS checks for the actions this project uses."""
    # The endpoint stands for AWS's, which speaks TLS, wherever a policy asks (aws:SecureTransport).
    app.pin_request_origin = lambda address, _: iam_evaluator.pin_request_origin(address, secure_transport=True)
    iam_actions.extract_resource_arn = _resource_arn
    iam_actions.extract_iam_action = _action
    iam_actions.dynamodb_service_context = _rows_context


def service_may(policy: dict | None, service: str, action: str, resource: str, source: str) -> bool:
    """Returns whether a resource's policy lets an AWS service act for the resource named as source."""
    context = _service_context(service, action, resource, source)
    return iam_evaluator.evaluate_resource_policy(policy, context, service=service).decision == "Allow"


def service_may_assume(role: str, service: str, source: str) -> bool:
    """Returns whether a role exists and trusts an AWS service that acts for the resource named as source."""
    record = ministack_iam._roles.get(role.rpartition("/")[2])
    if record is None or record["Arn"] != role:
        return False
    context = _service_context(service, "sts:AssumeRole", role, source)
    document = record["AssumeRolePolicyDocument"]
    statements = [
        {**statement, "Principal": "*"}
        for statement in (json.loads(document) if isinstance(document, str) else document)["Statement"]
        if service in _listed(statement.get("Principal", {}).get("Service", []))
    ]
    return iam_evaluator.evaluate_trust_policy({"Statement": statements}, service, context)


def role_may(role: str, action: str, resource: str) -> bool:
    """Returns whether a role's policies and its boundary allow an action that AWS performs on its behalf."""
    context = iam_evaluator.EvalContext(role, "AssumedRole", ACCOUNT, action, resource, REGION)
    name = role.rpartition("/")[2]
    limits = iam_evaluator._permissions_boundary(ministack_iam._roles, name, ACCOUNT)
    return (
        iam_evaluator.evaluate(context, iam_evaluator._gather_role_policies(name, ACCOUNT), *limits).decision == "Allow"
    )


def _service_context(service: str, action: str, resource: str, source: str) -> iam_evaluator.EvalContext:
    return iam_evaluator.EvalContext(
        principal_arn=service,
        principal_type="Service",
        principal_account="",
        action=action,
        resource_arn=resource,
        region=REGION,
        service_context={"aws:sourcearn": source, "aws:sourceaccount": ACCOUNT},
    )


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _action(service, method, path, headers, body, query) -> str | None:
    action = _extract_action(service, method, path, headers, body, query)
    if action == "lambda:ListEventSourceMappings" and not path.rstrip("/").endswith("event-source-mappings"):
        return "lambda:GetEventSourceMapping"
    return None if action in OWN_CHECKS else SQS_BATCHES.get(action, action)


def _resource_arn(service, method, path, headers, body, query, region, account) -> str:
    action = headers.get("x-amz-target", "").rpartition(".")[2]
    request = json.loads(body or "{}") if action else {}
    if service == "ssm" and action in DOCUMENT_FIELDS and request.get("ResourceType", "Document") == "Document":
        return _document_arn(request.get(DOCUMENT_FIELDS[action], ""))
    if service == "ssm" and request.get("Name", "").startswith(PUBLIC_PARAMETERS):
        return f"arn:aws:ssm:{region}::parameter{request['Name']}"
    if service == "ssm" and action == "GetParametersByPath":
        return f"arn:aws:ssm:{region}:{account}:parameter{request.get('Path', '')}"
    if service == "ecr" and action == "DescribeRepositories" and not request.get("repositoryNames"):
        return f"arn:aws:ecr:{region}:{account}:repository/*"
    if service == "ecr" and action:
        account = request.get("registryId", account)
    if service == "ec2" and query.get("Action", [""])[0].startswith("Describe"):
        return "*"
    if service == "scheduler":
        return _schedule_arn(path, body, query, f"arn:aws:scheduler:{region}:{account}:")
    return _extract_resource_arn(service, method, path, headers, body, query, region, account)


def _rows_context(body: bytes) -> dict:
    """Returns what a request to DynamoDB says for conditions, the partitions that it names among it.

    Those of a transaction are taken together, where AWS looks at each of its items.
    """
    request = json.loads(body or "{}")
    items = [item for parts in request.get("TransactItems", []) for item in parts.values()] or [request]
    keys = [key for item in items if (key := _partition(item))]
    return _dynamodb_context(body) | ({"dynamodb:LeadingKeys": keys} if keys else {})


def _partition(item: dict) -> str | None:
    """Returns the partition of a row that is named by its key or by all of it."""
    table = dynamodb._tables.get(dynamodb._normalize_table_name(item.get("TableName", "")))
    value = (item.get("Key") or item.get("Item") or {}).get(table["pk_name"]) if table else None
    return next(iter(value.values())) if value else None


def _schedule_arn(path: str, body: bytes, query: dict, prefix: str) -> str:
    kind, _, name = path.strip("/").partition("/")
    if kind == "schedule-groups":
        return f"{prefix}schedule-group/{name or '*'}"
    if kind != "schedules":
        return "*"
    if not name:
        return f"{prefix}schedule/*/*"  # a list is all groups', whichever it asks for (aws-cdk#38201)
    in_body = json.loads(body or "{}").get("GroupName")
    return f"{prefix}schedule/{in_body or query.get('groupName', ['default'])[0]}/{name}"


def _document_arn(name: str) -> str:
    if name.startswith("arn:"):
        return name
    owner = "" if name.startswith("AWS-") else ACCOUNT
    return f"arn:aws:ssm:{REGION}:{owner}:document/{name}"
