"""Puts the operations of SSM that are ours in front: documents, Run Command, managed nodes, parameters' limits."""

import json

from local.api import ApiError, Response, answer, check, page
from local.ec2 import amis, instances
from local.iam.permissions import Caller
from local.ministack import app, ec2, ssm
from local.nodes.fleet import Fleet, HybridNode, ManagedNode
from local.ssm import documents, parameters
from local.ssm.runcommand import RunCommand

PAGE_SIZE = 10
"""Rows of DescribeInstanceInformation when the request names no MaxResults."""

AGENT_VERSIONS = {"new": "3.3.3050.0", "old": "3.2.2303.0"}


class Ssm:
    """The operations of the SSM API that are ours."""

    def __init__(self, fleet: Fleet):
        self.fleet = fleet
        self.run_command = RunCommand(fleet)
        self.operations = {
            **documents.OPERATIONS,
            **parameters.OPERATIONS,
            "GetCommandInvocation": self.run_command.get_invocation,
            "ListCommandInvocations": self.run_command.list_invocations,
            "ListCommands": self.run_command.list_commands,
            "CancelCommand": self.run_command.cancel,
            "DescribeInstanceInformation": self.describe_instance_information,
        }

    def install(self) -> None:
        """Puts these operations in front of ministack's."""
        app.SERVICE_HANDLERS["ssm"] = self.handle

    async def handle(self, method: str, path: str, headers: dict, body: bytes, query: dict) -> Response:
        """Answers one request."""
        operation = headers.get("x-amz-target", "").rpartition(".")[2]
        request = json.loads(body or "{}")
        try:
            if operation == "SendCommand":
                check("ssm", operation, request)
                return answer(self.run_command.send(request, Caller(headers, query)))
            if operation in parameters.PLURAL_OPERATIONS:
                check("ssm", operation, request)
                return answer(parameters.PLURAL_OPERATIONS[operation](request, Caller(headers, query)))
            if operation in self.operations:
                check("ssm", operation, request)
                return answer(self.operations[operation](request))
            if operation in documents.TAG_OPERATIONS and request.get("ResourceType") == "Document":
                check("ssm", operation, request)
                return answer(documents.TAG_OPERATIONS[operation](request))
        except ApiError as error:
            return error.response()
        return await ssm.handle_request(method, path, headers, body, query)

    def describe_instance_information(self, request: dict) -> dict:
        """DescribeInstanceInformation."""
        filters = [(f["Key"], f["Values"]) for f in request.get("Filters", [])]
        old_filters = [(f["key"], f["valueSet"]) for f in request.get("InstanceInformationFilterList", [])]
        if filters and old_filters:
            raise ApiError("ValidationException", "Use either Filters or InstanceInformationFilterList.")
        named = [values for key, values in filters + old_filters if key == "InstanceIds"]
        nodes = [
            node
            for node in self.fleet.registered(set().union(*named) if named else None)
            if all(_fact(node, key) in values for key, values in filters + old_filters)
        ]
        nodes, rest = page(nodes, request.get("NextToken"), request.get("MaxResults", PAGE_SIZE))
        return {"InstanceInformationList": [_information(node) for node in nodes], **rest}


def _information(node: ManagedNode) -> dict:
    if isinstance(node, HybridNode):
        return _agent(node) | {"SourceType": "AWS::SSM::ManagedInstance"}
    instance = ec2._instances[node.instance_id]
    bottlerocket = amis.find(instance["ImageId"]).bottlerocket
    return _agent(node) | {
        "PlatformName": "Bottlerocket" if bottlerocket else "Amazon Linux",
        "PlatformVersion": "1.42.0" if bottlerocket else "2023",
        "IPAddress": instance["PrivateIpAddress"],
        "ComputerName": instance["PrivateDnsName"],
        "SourceType": "AWS::EC2::Instance",
    }


def _agent(node: ManagedNode) -> dict:
    return {
        "InstanceId": node.instance_id,
        "PingStatus": _fact(node, "PingStatus"),
        "LastPingDateTime": node.seen,
        "AgentVersion": AGENT_VERSIONS[node.knobs.agent],
        "IsLatestVersion": node.knobs.agent == "new",
        "PlatformType": node.knobs.platform,
        "ResourceType": _fact(node, "ResourceType"),
        "SourceId": node.instance_id,
    }


def _fact(node: ManagedNode, key: str) -> str | None:
    """Returns what a filter of that key compares."""
    if key.startswith("tag:"):
        return instances.tags(node.instance_id).get(key.removeprefix("tag:"))
    facts = {
        "InstanceIds": node.instance_id,
        "PingStatus": "Online" if node.online else "ConnectionLost",
        "PlatformTypes": node.knobs.platform,
        "ResourceType": "ManagedInstance" if isinstance(node, HybridNode) else "EC2Instance",
        "AgentVersion": AGENT_VERSIONS[node.knobs.agent],
    }
    if key not in facts:
        raise ApiError("InvalidFilterKey", f"The specified key is not valid: {key}")
    return facts[key]
