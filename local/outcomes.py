"""Reads what a stack on a local cloud has stored of its commands: jobs, nodes, totals, records."""

import json
from decimal import Decimal
from typing import Any

from boto3.dynamodb.types import TypeDeserializer

from local.stack import Stack


class Outcomes:
    """The table and the bucket of a deployed stack."""

    def __init__(self, stack: Stack):
        resources = stack.resources()
        self.table, self.bucket = resources["Outcomes"], resources["Records"]
        self._dynamodb, self._s3 = stack.cloud.client("dynamodb"), stack.cloud.client("s3")

    def job(self, command_id: str) -> dict[str, Any] | None:
        """Returns a job's row, None while there is none."""
        rows = self._rows(f"job#{command_id}")
        return next((row for row in rows if row["sk"] == "job"), None)

    def nodes(self, command_id: str) -> dict[str, dict[str, Any]]:
        """Returns a job's nodes by instance id."""
        return {
            row["sk"].removeprefix("node#"): row
            for row in self._rows(f"job#{command_id}")
            if row["sk"].startswith("node#")
        }

    def totals(self, trigger: str) -> dict[str, Any]:
        """Returns the totals of all jobs of a trigger."""
        return next((row for row in self._rows("totals") if row["sk"] == trigger), {})

    def usage(self, rule: str) -> list[dict[str, Any]]:
        """Returns the rows of what a rule's nodes run, each with how often it was written (`version`)."""
        return self._rows(f"usage#{rule}")

    def outbox(self) -> list[dict[str, Any]]:
        """Returns what is written of outcomes and not yet passed on."""
        found = self._dynamodb.get_paginator("scan").paginate(
            TableName=self.table,
            FilterExpression="begins_with(pk, :outbox)",
            ExpressionAttributeValues={":outbox": {"S": "outbox"}},
            ConsistentRead=True,
        )
        return [_plain(item) for page in found for item in page["Items"]]

    def objects(self) -> dict[str, list[dict]]:
        """Returns the records by the key of the object that holds them."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        keys = [row["Key"] for page in pages for row in page.get("Contents", [])]
        return {key: self._lines(key) for key in keys}

    def records(self, command_id: str) -> list[dict]:
        """Returns a job's records, in the order of their objects' keys."""
        return [record for lines in self.objects().values() for record in lines if record["job"] == command_id]

    def _lines(self, key: str) -> list[dict]:
        body = self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return [json.loads(line) for line in body.decode().splitlines()]

    def _rows(self, partition: str) -> list[dict[str, Any]]:
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self.table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": partition}},
            ConsistentRead=True,
        )
        return [_plain(item) for page in pages for item in page["Items"]]


def _plain(item: dict) -> dict[str, Any]:
    deserializer = TypeDeserializer()
    return {name: _number(deserializer.deserialize(value)) for name, value in item.items()}


def _number(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _number(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_number(inner) for inner in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value
