"""Does what node-launch does, in Python with boto3 as it is usually written: one invocation per node, nothing kept."""

import json
import os

import boto3
from image_push import wants

SETTINGS = os.environ
RULES = json.loads(SETTINGS["RULES"])

ec2 = boto3.client("ec2")
ecr = boto3.client("ecr")
ssm = boto3.client("ssm")


def handler(event, context):
    """Sends the instance of the event the newest image of each repository."""
    instance_id = event["detail"]["instance-id"]
    reservations = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
    tags = {tag["Key"]: tag["Value"] for tag in reservations[0]["Instances"][0]["Tags"]}
    if tags.get(SETTINGS["CLUSTER_TAG_KEY"]) != SETTINGS["CLUSTER_NAME"]:
        return {"decision": "dropped"}
    filters = [{"Key": "InstanceIds", "Values": [instance_id]}]
    known = ssm.describe_instance_information(Filters=filters)["InstanceInformationList"]
    if not known or known[0]["PingStatus"] != "Online":
        raise RuntimeError(f"{instance_id} is not online")
    return {"decision": "sent", "commands": [send(rule, instance_id) for rule in RULES]}


def send(rule, instance_id):
    """Sends the command of one rule."""
    answer = ssm.send_command(
        DocumentName=SETTINGS["DOCUMENT_NAME"],
        DocumentVersion="$LATEST",
        InstanceIds=[instance_id],
        Parameters={
            "images": [" ".join(newest(repository, rule["tags"]) for repository in repositories(rule))],
            "executionTimeout": [SETTINGS["EXECUTION_TIMEOUT_SECONDS"]],
            "imageGCHighThresholdPercent": [SETTINGS["IMAGE_GC_HIGH_THRESHOLD_PERCENT"]],
            "maxParallelImagePulls": [SETTINGS["MAX_PARALLEL_IMAGE_PULLS"]],
            "maxConnections": [SETTINGS["LAUNCH_MAX_CONNECTIONS"]],
            "maxBandwidthMiB": [SETTINGS["MAX_BANDWIDTH_MIB"]],
            "maxImageGiB": ["0"],
            "keep": ["0"],
            "pin": ["false"],
        },
        TimeoutSeconds=int(SETTINGS["DELIVERY_TIMEOUT_SECONDS"]),
        MaxConcurrency=rule["maxConcurrency"],
        MaxErrors=rule["maxErrors"],
        Comment=f"launch rule={rule['name']} attempt=1",
    )
    command = answer["Command"]["CommandId"]
    print(json.dumps({"level": "INFO", "message": f"{instance_id}: sent {command}", "rule": rule["name"]}))
    return {"rule": rule["name"], "command": command}


def repositories(rule):
    """Returns the repositories of a rule; only a glob needs a listing."""
    if not any(character in glob for glob in rule["repositories"] for character in "*?[!"):
        return rule["repositories"]
    names = [repository["repositoryName"] for repository in ecr.describe_repositories()["repositories"]]
    return [name for name in names if wants(rule["repositories"], name)]


def newest(repository, tags):
    """Returns the reference of the image that was pushed last under a tag that the rule takes."""
    images = ecr.describe_images(repositoryName=repository, filter={"tagStatus": "TAGGED"})["imageDetails"]
    image = max(images, key=lambda image: image["imagePushedAt"])
    tag = next(tag for tag in image["imageTags"] if wants(tags, tag))
    registry = f"{image['registryId']}.dkr.ecr.{SETTINGS['AWS_REGION']}.amazonaws.com"
    return f"{registry}/{repository}:{tag}@{image['imageDigest']}"
