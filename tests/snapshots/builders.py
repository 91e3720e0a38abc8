"""Reads what a bake has called and what its builder is, for the stack that is baked here."""

import json
from typing import Any

from bakes import Bakes

NAME = "snapshots"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/0f4d2ae0-1c1c-4a0a-9d6c-5f0b7ab8f9a1"
ORDINARY = {"online": True, "online_after": 1.0, "endings": [], "managed": None, "die_on_command": False}


def calls(bakes: Bakes, execution: str) -> set[str]:
    """Returns what a bake has called."""
    details = [event.get("taskScheduledEventDetails") for event in bakes.history(execution)]
    return {found["resource"] for found in details if found}


def state_of(bakes: Bakes, execution: str) -> str | None:
    """Returns the innermost state that a bake is in."""
    [row] = [row for row in bakes.cloud.executions(bakes.machine) if row["arn"] == execution]
    return row["states"][-1] if row["states"] else None


def builder_of(bakes: Bakes, **input_: Any) -> tuple[dict, dict[str, dict]]:
    """Returns the builder of a bake, and its volumes by their device."""
    name = f"looked-at-{len(bakes.cloud.executions())}"
    bakes.cloud.fault_state("StopBuilder", "pause", execution=name)
    execution = bakes.start(name, **input_)
    bakes.until_in(execution, "StopBuilder")
    [builder] = bakes.builders()
    volumes = {volume["Attachments"][0]["Device"]: volume for volume in bakes.volumes()}
    bakes.cloud.release("StopBuilder", name)
    bakes.succeeded(execution)
    bakes.until_clean()
    return builder, volumes


def fast(bakes: Bakes) -> dict[tuple[str, str], str]:
    """Returns the state of fast restore by snapshot and zone."""
    rows = bakes.cloud.client("ec2").describe_fast_snapshot_restores()["FastSnapshotRestores"]
    return {(row["SnapshotId"], row["AvailabilityZone"]): row["State"] for row in rows}


def allow_key(bakes: Bakes) -> None:
    """Has the key be usable by who bakes, as its own policy would (docs/security.md)."""
    actions = ["kms:CreateGrant", "kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext"]
    allowed = {"Effect": "Allow", "Action": actions, "Resource": KEY}
    bakes.cloud.client("iam").put_role_policy(
        RoleName=bakes.resources["BakeSnapshotRole"],
        PolicyName="key",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}),
    )


def vpc(bakes: Bakes) -> str:
    """Returns the cluster's network."""
    subnets = bakes.cloud.client("ec2").describe_subnets(SubnetIds=bakes.cluster["subnets"][:1])
    return subnets["Subnets"][0]["VpcId"]
