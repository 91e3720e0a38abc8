"""Tells what jobs tells, in Python with boto3 as it is usually written."""

import base64
import os
from urllib.parse import parse_qs, urlsplit

import boto3
from boto3.dynamodb.types import TypeDeserializer

TABLE = os.environ["TABLE_NAME"]
COUNTERS = ("jobs", "pulled", "cached", "skipped", "failed", "retried", "bytes")

dynamodb = boto3.client("dynamodb")
ec2 = boto3.client("ec2")
ecr = boto3.client("ecr")
ssm = boto3.client("ssm")
plain = TypeDeserializer().deserialize


def handler(event, context):
    """Answers a question by its route."""
    route = urlsplit(event["route"].removeprefix("GET "))
    parameters = {name: values[0] for name, values in parse_qs(route.query).items()}
    if route.path == "/jobs/stats":
        return stats()
    if route.path == "/nodes":
        return nodes(**parameters)
    return job(route.path.rpartition("/")[2], **parameters)


def stats():
    """Counts what became of all jobs."""
    triggers = {row["sk"]: {name: int(row.get(name, 0)) for name in COUNTERS} for row in partition("totals")[0]}
    return {name: sum(row[name] for row in triggers.values()) for name in COUNTERS} | {"triggers": triggers}


def job(id, limit, next=None):
    """Tells of a job and a page of its nodes."""
    rows, rest = partition(f"job#{id}", int(limit) + 1)
    [job] = [row for row in rows if row["sk"] == "job"]
    outcomes = [
        {
            "node": row["sk"].removeprefix("node#"),
            "status": row["status"],
            "attempt": int(row["attempt"]),
            "retrying": row["retrying"],
            "endedAt": row["ended_at"],
            "images": [
                {
                    "image": image,
                    "status": outcome["status"],
                    "reason": outcome["reason"],
                    "seconds": float(outcome["seconds"]),
                    "bytes": int(outcome["bytes"]),
                    "attempts": int(outcome["attempts"]),
                }
                for image, outcome in row["images"].items()
            ],
        }
        for row in rows
        if row["sk"].startswith("node#")
    ]
    counters = {name: int(job.get(name, 0)) for name in (*COUNTERS, "targets")}
    about = {name: job[name] for name in ("trigger", "rule", "requested_at")}
    return {"id": id, **about, "nodes": counters, "outcomes": outcomes} | ({"next": "more"} if rest else {})


def nodes(limit, next=None):
    """Tells of a page of the cluster's nodes."""
    page = {"NextToken": base64.urlsafe_b64decode(next).decode()} if next else {}
    filters = [{"Name": "tag:aws:eks:cluster-name", "Values": [os.environ["CLUSTER_NAME"]]}]
    answer = ec2.describe_instances(Filters=filters, MaxResults=int(limit), **page)
    instances = [instance for reservation in answer["Reservations"] for instance in reservation["Instances"]]
    ids = [instance["InstanceId"] for instance in instances]
    online, held = {}, {}
    for start in range(0, len(ids), 100):
        some = ids[start : start + 100]
        filters = [{"Key": "InstanceIds", "Values": some}]
        pages = ssm.get_paginator("describe_instance_information").paginate(
            Filters=filters, PaginationConfig={"PageSize": 50}
        )
        online |= {row["InstanceId"]: row for page in pages for row in page["InstanceInformationList"]}
        keys = [{"pk": {"S": f"node#{node}"}, "sk": {"S": "node"}} for node in some]
        rows = dynamodb.batch_get_item(RequestItems={TABLE: {"Keys": keys}})["Responses"][TABLE]
        held |= {
            row["pk"]["S"].removeprefix("node#"): {name: plain(value) for name, value in row.items()} for row in rows
        }
    newest = ecr.describe_images(repositoryName="team/app")["imageDetails"]
    answered = {"nodes": [node(instance, online, held, newest) for instance in instances]}
    if token := answer.get("NextToken"):
        answered["next"] = base64.urlsafe_b64encode(token.encode()).decode()
    return answered


def node(instance, online, held, newest):
    """Tells of one node."""
    id = instance["InstanceId"]
    known = held.get(id, {}).get("images", {})
    images = [
        {
            "image": name,
            "state": "warm" if holding["status"] in ("pulled", "cached") else "missing",
            "since": holding["since"],
        }
        for name, holding in known.items()
        if any(name.endswith(image["imageDigest"]) for image in newest)
    ]
    state = online[id]["PingStatus"].lower() if id in online else "never-registered"
    launched_at = instance["LaunchTime"].isoformat()
    return {"id": id, "launchedAt": launched_at, "rules": ["default"], "ssm": {"state": state}, "images": images}


def partition(key, limit=None):
    """Returns a page of a partition's rows, and whether there are more."""
    answer = dynamodb.query(
        TableName=TABLE,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": key}},
        **({"Limit": limit} if limit else {}),
    )
    rows = [{name: plain(value) for name, value in item.items()} for item in answer["Items"]]
    return rows, "LastEvaluatedKey" in answer
