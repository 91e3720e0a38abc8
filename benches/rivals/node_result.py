"""Does what node-result does, in Python with boto3 as it is usually written: one report after the other."""

import json
import os
import time

import boto3

SETTINGS = os.environ
EXPIRES_AFTER_SECONDS = int(SETTINGS["OUTCOME_RETENTION_DAYS"]) * 86_400

dynamodb = boto3.client("dynamodb")
s3 = boto3.client("s3")
ssm = boto3.client("ssm")


def handler(event, context):
    """Settles the batch's reports: a transaction each, and one object for all."""
    records = [record for message in event["Records"] for record in settle(json.loads(message["body"])["detail"])]
    body = "".join(json.dumps(record) + "\n" for record in records)
    key = f"records/trigger=push/date=2026-01-02/{event['Records'][0]['messageId']}.jsonl"
    s3.put_object(Bucket=SETTINGS["RECORDS_BUCKET"], Key=key, Body=body.encode())
    return {"batchItemFailures": []}


def settle(detail):
    """Stores what a node reported, moves the counters, and returns the lines for the records."""
    command, node = detail["command-id"], detail["instance-id"]
    invocation = ssm.get_command_invocation(CommandId=command, InstanceId=node)
    reports = [json.loads(line) for line in invocation["StandardOutputContent"].splitlines()]
    status = max((report["status"] for report in reports), key=["cached", "pulled", "skipped", "failed"].index)
    counters = {":one": {"N": "1"}, ":bytes": {"N": str(sum(report["bytes"] for report in reports))}}
    expires_at = {"N": str(int(time.time()) + EXPIRES_AFTER_SECONDS)}
    row = {
        "pk": {"S": f"job#{command}"},
        "sk": {"S": f"node#{node}"},
        "status": {"S": status},
        "images": {"S": json.dumps(reports)},
        "expires_at": expires_at,
    }
    dynamodb.transact_write_items(
        TransactItems=[
            {"Put": put(row)},
            {"Update": add(f"job#{command}", "job", status, counters)},
            {"Update": add("totals", "push", status, counters)},
        ]
    )
    ended_at = invocation["ExecutionEndDateTime"]
    return [{"time": ended_at, "job": command, "node": node, **report} for report in reports]


def put(row):
    """Returns the part of a transaction that stores a row once."""
    condition = "attribute_not_exists(pk)"
    return {"TableName": SETTINGS["TABLE_NAME"], "Item": row, "ConditionExpression": condition}


def add(pk, sk, status, counters):
    """Returns the part of a transaction that moves a row's counters."""
    return {
        "TableName": SETTINGS["TABLE_NAME"],
        "Key": {"pk": {"S": pk}, "sk": {"S": sk}},
        "UpdateExpression": "ADD #status :one, #bytes :bytes",
        "ExpressionAttributeNames": {"#status": status, "#bytes": "bytes"},
        "ExpressionAttributeValues": counters,
    }
