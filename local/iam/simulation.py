"""Replaces SimulatePrincipalPolicy: conditions by context, boundaries, and every resource that is named."""

from collections.abc import Iterable, Mapping
from xml.sax.saxutils import escape

from local.api import Response
from local.ministack import iam, iam_evaluator
from local.settings import ACCOUNT, REGION

DECISIONS = {"Allow": "allowed", "Deny": "explicitDeny", "ImplicitDeny": "implicitDeny"}


def install() -> None:
    """Answers the operation in ministack's place, which looks at one resource and at no context."""
    iam._IAM_HANDLERS["SimulatePrincipalPolicy"] = simulate


def simulate(parameters: Mapping[str, list[str]]) -> Response:
    """SimulatePrincipalPolicy: one result for each action and resource."""
    arn = iam._p(parameters, "PolicySourceArn")
    kind, _, path = arn.rpartition(":")[2].partition("/")
    name = path.rpartition("/")[2]
    store, gather = {
        "role": (iam._roles, iam_evaluator._gather_role_policies),
        "user": (iam._users, iam_evaluator._gather_user_policies),
    }.get(kind, ({}, None))
    if name not in store:
        return iam._error(404, "NoSuchEntity", f"The {kind} with name {name} cannot be found.", ns="iam")
    policies, limits = gather(name, ACCOUNT), iam_evaluator._permissions_boundary(store, name, ACCOUNT)
    results = "".join(
        _result(
            iam_evaluator.EvalContext(arn, "AssumedRole", ACCOUNT, action, resource, REGION, service_context=context),
            policies,
            limits,
        )
        for context in [_context(parameters)]
        for action in _members(parameters, "ActionNames")
        for resource in list(_members(parameters, "ResourceArns")) or ["*"]
    )
    answer = f"<EvaluationResults>{results}</EvaluationResults><IsTruncated>false</IsTruncated>"
    whole = f"<SimulatePrincipalPolicyResult>{answer}</SimulatePrincipalPolicyResult>"
    return iam._xml(200, "SimulatePrincipalPolicyResponse", whole, ns="iam")


def _result(
    context: iam_evaluator.EvalContext, policies: list[list[iam_evaluator.ParsedStatement]], limits: list
) -> str:
    decision = DECISIONS[iam_evaluator.evaluate(context, policies, *limits).decision]
    statements = [statement for policy in policies for statement in policy]
    keys = {key for row in statements for block in row.conditions.values() for key in block}
    missing = sorted(key for key in keys if iam_evaluator._resolve_condition_key(key, context) is None)
    boundary = ""
    if limits:
        within = str(iam_evaluator.evaluate(context, limits[0]).decision == "Allow").lower()
        allowed = f"<AllowedByPermissionsBoundary>{within}</AllowedByPermissionsBoundary>"
        boundary = f"<PermissionsBoundaryDecisionDetail>{allowed}</PermissionsBoundaryDecisionDetail>"
    return (
        f"<member><EvalActionName>{escape(context.action)}</EvalActionName>"
        f"<EvalResourceName>{escape(context.resource_arn)}</EvalResourceName>"
        f"<EvalDecision>{decision}</EvalDecision><MatchedStatements/>"
        f"<MissingContextValues>{''.join(f'<member>{escape(key)}</member>' for key in missing)}</MissingContextValues>"
        f"{boundary}</member>"
    )


def _context(parameters: Mapping[str, list[str]]) -> dict[str, str | list[str]]:
    """Returns the context of the request by key, in small letters as the evaluator has them."""
    found: dict[str, str | list[str]] = {}
    for number in range(1, len(parameters) + 1):
        entry = f"ContextEntries.member.{number}"
        if not (key := iam._p(parameters, f"{entry}.ContextKeyName")):
            break
        values = list(_members(parameters, f"{entry}.ContextKeyValues"))
        is_list = iam._p(parameters, f"{entry}.ContextKeyType").endswith("List")
        found[key.lower()] = values if is_list else values[0]
    return found


def _members(parameters: Mapping[str, list[str]], name: str) -> Iterable[str]:
    for number in range(1, len(parameters) + 1):
        if not (value := iam._p(parameters, f"{name}.member.{number}")):
            return
        yield value
