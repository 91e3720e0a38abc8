"""Does what image-push does, in Python with boto3: the same events, the same rules, the same command."""

import fnmatch
import json
import os

import boto3

SETTINGS = os.environ
RULES = json.loads(SETTINGS["RULES"])
IMAGES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)

ssm = boto3.client("ssm")


def handler(event, context):
    """Sends one command for each rule that wants the image of the event."""
    detail = event["detail"]
    if detail["action-type"] != "PUSH" or detail["result"] != "SUCCESS" or "image-tag" not in detail:
        return {"decision": "ignored"}
    if detail["manifest-media-type"] not in IMAGES:
        return {"decision": "ignored"}
    repository, tag = detail["repository-name"], detail["image-tag"]
    registry = f"{event['account']}.dkr.ecr.{event['region']}.amazonaws.com"
    image = f"{registry}/{repository}:{tag}@{detail['image-digest']}"
    rules = [rule for rule in RULES if wants(rule["repositories"], repository) and wants(rule["tags"], tag)]
    commands = [{"rule": rule["name"], "command": send(rule, image)} for rule in rules]
    return {"decision": "sent", "image": image, "commands": commands}


def send(rule, image):
    """Sends the command of one rule."""
    nodes = {SETTINGS["CLUSTER_TAG_KEY"]: [SETTINGS["CLUSTER_NAME"]], **rule["nodes"]}
    answer = ssm.send_command(
        DocumentName=SETTINGS["DOCUMENT_NAME"],
        DocumentVersion="$LATEST",
        Targets=[{"Key": f"tag:{key}", "Values": values} for key, values in nodes.items()],
        Parameters={
            "images": [image],
            "executionTimeout": [SETTINGS["EXECUTION_TIMEOUT_SECONDS"]],
            "imageGCHighThresholdPercent": [SETTINGS["IMAGE_GC_HIGH_THRESHOLD_PERCENT"]],
            "maxParallelImagePulls": [SETTINGS["MAX_PARALLEL_IMAGE_PULLS"]],
            "maxConnections": [SETTINGS["MAX_CONNECTIONS"]],
            "maxBandwidthMiB": [SETTINGS["MAX_BANDWIDTH_MIB"]],
            "maxImageGiB": ["0"],
            "keep": ["0"],
            "pin": ["false"],
        },
        TimeoutSeconds=int(SETTINGS["DELIVERY_TIMEOUT_SECONDS"]),
        MaxConcurrency=rule["maxConcurrency"],
        MaxErrors=rule["maxErrors"],
        Comment=f"push rule={rule['name']} attempt=1",
    )
    command = answer["Command"]["CommandId"]
    print(json.dumps({"level": "INFO", "message": f"sent {image}", "command.id": command, "rule": rule["name"]}))
    return command


def wants(globs, text):
    """Tells whether any glob takes the text and no excluding one does."""
    excluding = [glob[1:] for glob in globs if glob.startswith("!")]
    including = [glob for glob in globs if not glob.startswith("!")] or ["*"]
    taken = any(fnmatch.fnmatchcase(text, glob) for glob in including)
    return taken and not any(fnmatch.fnmatchcase(text, glob) for glob in excluding)
