"""Tells what IAM lets the functions send, and to whom, by IAM's own simulation."""

from collections.abc import Iterator, Mapping
from typing import Any

from verify.aws import Account
from verify.results import Results
from verify.stack import Stack

SENDERS = ("ImagePush", "Jobs", "NodeLaunch")
ACTION = "ssm:SendCommand"
ANY_INSTANCE = "instance/i-0123456789abcdef0"
OTHER_CLUSTER = "another-cluster-than-this"


def check(account: Account, stack: Stack, functions: Mapping[str, Mapping], results: Results) -> None:
    """Checks that each function that sends may send the stack's document to the cluster's nodes, and nothing else."""
    roles = {name: functions[name]["Role"] for name in SENDERS if name in functions}
    own = stack.arn_of("ssm", f"document/{stack.physical('PrefetchImages')}")
    foreign = stack.arn_of("ssm", "document/AWS-RunShellScript", account="")
    node = stack.arn_of("ec2", ANY_INSTANCE)
    ours, others = (_tags(stack, cluster) for cluster in (stack.cluster, OTHER_CLUSTER))
    allowed = [(own, ()), (node, ours)]
    what = "IAM: the document may be sent to the cluster's nodes"
    if stack.observes:
        _refused(account, roles, allowed, "IAM: nothing may be sent (Mode: observe)", results)
    else:
        with results.checking(what):
            faults = [fault for name, role in roles.items() for fault in _denials(account, name, role, allowed)]
            _tell(results, what, faults, roles)
    _refused(account, roles, [(node, others)], "IAM: nodes of another cluster are refused", results)
    _refused(account, roles, [(foreign, ())], "IAM: AWS-RunShellScript is refused", results)


def _tags(stack: Stack, cluster: str) -> tuple[dict, ...]:
    """Returns the context of a request for an instance of a cluster."""
    key = f"ssm:resourceTag/{stack.cluster_tag}"
    return ({"ContextKeyName": key, "ContextKeyValues": [cluster], "ContextKeyType": "string"},)


def _denials(account: Account, name: str, role: str, wanted: list[tuple]) -> Iterator[str]:
    """Yields what a role needs and may not."""
    for resource, context in wanted:
        result = simulate(account, role, resource, context)
        if result["EvalDecision"] != "allowed":
            kind = resource.rpartition(":")[2].partition("/")[0]
            yield f"{name}'s role may not {ACTION} on the {kind}: {_because(result)}"
            return


def _refused(account: Account, roles: Mapping[str, str], wanted: list[tuple], what: str, results: Results) -> None:
    with results.checking(what):
        faults = [
            f"{name}'s role may {ACTION} on {resource}: a policy that is not the stack's allows it; take it away"
            for name, role in roles.items()
            for resource, context in wanted
            if simulate(account, role, resource, context)["EvalDecision"] == "allowed"
        ]
        _tell(results, what, faults, roles)


def simulate(account: Account, role: str, resource: str, context: tuple[dict, ...]) -> dict[str, Any]:
    """Returns what IAM decides of a command to one resource."""
    answer = account.client("iam").simulate_principal_policy(
        PolicySourceArn=role, ActionNames=[ACTION], ResourceArns=[resource], ContextEntries=list(context)
    )
    return answer["EvaluationResults"][0]


def _because(result: Mapping[str, Any]) -> str:
    """Returns which policy is in the way, and what to do."""
    if not result.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations", True):
        return "a service control policy of the organization denies it"
    if not result.get("PermissionsBoundaryDecisionDetail", {}).get("AllowedByPermissionsBoundary", True):
        return "the role's permissions boundary does not allow it"
    if result["EvalDecision"] == "explicitDeny":
        return "one of its policies denies it"
    return "its policy send-prefetch-images is missing or changed; deploy the stack again"


def _tell(results: Results, what: str, faults: list[str], roles: Mapping[str, str]) -> None:
    if faults:
        results.broken(what, "; ".join(faults))
    elif len(roles) < len(SENDERS):
        missing = ", ".join(sorted(set(SENDERS) - set(roles)))
        results.unchecked(what, f"there is no role to ask about: {missing}")
    else:
        results.held(what, ", ".join(roles))
