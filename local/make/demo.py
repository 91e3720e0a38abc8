"""Shows the main job to a person: a push warms a node that runs, a launch a new one, and all is kept."""

import json
import re
import sys
import time

from local import images
from local.client import LocalCloud, until
from local.outcomes import Outcomes
from local.stack import Stack

CLUSTER = {"aws:eks:cluster-name": "demo"}
REPOSITORY = "team/app"
WAIT = 30
STATUSES = ("pulled", "cached", "skipped", "failed")


def run() -> None:
    """Runs the demo; raises where something was not seen."""
    step("A local cloud: AWS emulated, one node with a real containerd, a registry that asks for a login")
    with LocalCloud() as cloud:
        stack = Stack(cloud)
        show("endpoint", cloud.endpoint)
        started = time.monotonic()
        stack.deploy(ClusterName="demo")
        show("sam deploy", f"{len(stack.resources())} resources in {time.monotonic() - started:.0f} s")
        seen = [pushed(cloud, stack), launched(cloud, stack), pushed_again(cloud, stack)]
        table(seen)
        kept(stack, [row["job"] for row in seen])
        held(stack, [row["node"] for row in seen[:2]])
    print("\nGo on: `make invoke EVENT=events/image-push.index.json` replays an event,")
    print("`make deploy` deploys to your own account. docs/deploy.md says the rest.")


def pushed(cloud: LocalCloud, stack: Stack) -> dict:
    """Pushes an image and shows it arrive on the node that runs."""
    node = cloud.launch(CLUSTER, online_after=0)
    cloud.until_online(node)
    # Its own launch finds no image yet: were it looked at later, it and the push would bring the same.
    until(lambda: has_looked(cloud, stack), WAIT, "the node's launch to be looked at")
    step(f"A push: {REPOSITORY}:v1 into the registry; node {node} runs")
    digest = cloud.push(REPOSITORY, "v1", images.image("v1", layers=3, layer_bytes=8 << 20))
    event = until(lambda: pushes(cloud), WAIT, "ECR's event")[0]
    detail = event["detail"]
    show(
        "event",
        f"{event['detail-type']}: {detail['action-type']} {detail['result']}, {REPOSITORY}:{detail['image-tag']}",
    )
    return arrived(cloud, stack, "push", node, digest)


def launched(cloud: LocalCloud, stack: Stack) -> dict:
    """Launches a node, which SSM cannot reach at first, and shows the newest image arrive on it."""
    digest = pushes(cloud)[-1]["detail"]["image-digest"]
    node = cloud.launch(CLUSTER, online_after=4)
    step(f"A launch: node {node}")
    if reachable(cloud, node):
        raise RuntimeError("the node was reachable at once: nothing has waited")
    show("SSM", "not reachable yet: the node's message waits in the queue")
    cloud.until_online(node)
    show("SSM", "reachable")
    return arrived(cloud, stack, "launch", node, digest)


def pushed_again(cloud: LocalCloud, stack: Stack) -> dict:
    """Delivers the newest push's event again, and shows that it costs the node milliseconds."""
    event = pushes(cloud)[-1]
    before = {command["CommandId"] for command in stack.commands("push")}
    step("The same event again, as EventBridge may deliver it")
    cloud.send_event(event)
    again = until(
        lambda: [command for command in stack.commands("push") if command["CommandId"] not in before],
        WAIT,
        "the event's command",
    )[0]
    node = next(iter(cloud.state()["nodes"]))
    return reported(cloud, stack, again, node, event["detail"]["image-digest"], "cached")


def has_looked(cloud: LocalCloud, stack: Stack) -> bool:
    """Returns whether a launch was looked at, and none waits."""
    resources, counts = stack.resources(), ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    queue = {"QueueUrl": resources["NodeQueue"], "AttributeNames": [*counts, "ApproximateNumberOfMessagesDelayed"]}
    waiting = cloud.client("sqs").get_queue_attributes(**queue)["Attributes"].values()
    return bool(cloud.calls("ec2", resources["NodeLaunch"])) and all(count == "0" for count in waiting)


def pushes(cloud: LocalCloud) -> list[dict]:
    """Returns ECR's events of the demo's repository: the stack's own, with the nodes' program, is another."""
    return [event for event in cloud.events("ECR Image Action") if event["detail"]["repository-name"] == REPOSITORY]


def arrived(cloud: LocalCloud, stack: Stack, trigger: str, node: str, digest: str) -> dict:
    """Waits for the trigger's newest command and shows what became of it on the node."""

    def sent() -> list[dict]:
        """Returns the trigger's commands that went to the node, by its id or by its tags."""
        return [command for command in stack.commands(trigger) if node in (command["InstanceIds"] or [node])]

    command = until(sent, WAIT, f"a command for the {trigger}")[0]
    return reported(cloud, stack, command, node, digest, "pulled")


def reported(cloud: LocalCloud, stack: Stack, command: dict, node: str, digest: str, status: str) -> dict:
    """Shows a command, the node's report of it, and the image's names in containerd."""
    rule = re.search(r"rule=(\S+)", command["Comment"])[1]
    show("rule", f"{rule} wants it")
    show("command", f"{command['CommandId']} ({command['Comment']})")
    report = until(lambda: stack.report(command["CommandId"], node), WAIT, "the node's report")[0]
    milliseconds = round(report["seconds"] * 1000)
    show("report", f"{report['status']} in {milliseconds} ms, {report['bytes']:,} bytes, {report['attempts']} attempts")
    if (report["status"], report["digest"]) != (status, digest):
        raise RuntimeError(f"{status} {digest} was expected")
    name = report["image"].partition("@")[0]
    for reference in (name, f"{name.rpartition(':')[0]}@{digest}"):
        if cloud.image_status(node, reference) is None:
            raise RuntimeError(f"containerd on {node} knows no {reference}")
        show("containerd", f"has {reference}")
    return {
        "node": node,
        "image": name.rpartition("/")[2],
        "status": report["status"],
        "seconds": report["seconds"],
        "job": command["CommandId"],
    }


def kept(stack: Stack, jobs: list[str]) -> None:
    """Shows what was kept of the commands: a row of each job, a record of each node and image."""
    step("What the nodes said is kept: jobs in the table, records in the bucket, metrics beside them")
    outcomes = Outcomes(stack)
    table([job_row(until(lambda job=job: finished(outcomes, job), WAIT, f"job {job} to be done")) for job in jobs])
    objects = until(lambda: recorded(outcomes, jobs), WAIT, "the records")
    table([record_row(record) for records in objects.values() for record in records])
    key, [record, *_] = next(iter(objects.items()))
    print(f"\n  such as s3://{outcomes.bucket}/{key}\n  {json.dumps(record)}")


def held(stack: Stack, nodes: list[str]) -> None:
    """Shows which node holds what, and what one more job finds."""
    step("Which node holds what, as the jobs API tells: GET /nodes")
    answer = stack.invoke("Jobs", {"route": "GET /nodes"})
    table([node_row(node, image) for node in answer["nodes"] for image in node["images"]])
    warm = {node["id"] for node in answer["nodes"] if all(image["state"] == "warm" for image in node["images"])}
    if not warm >= set(nodes):
        raise RuntimeError(f"the API does not call every node warm: {answer}")

    body = {"images": [f"{REPOSITORY}:v1"]}
    step(f"A job: POST /jobs {json.dumps(body)}")
    [sent] = stack.invoke("Jobs", body)["jobs"]
    route = {"route": f"GET /jobs/{sent['id']}"}
    job = until(lambda: done(stack.invoke("Jobs", route)), WAIT, f"job {sent['id']} to be done")
    show("job", f"{job['id']} by rule {job['rule']}: {job['state']}")
    counted = ", ".join(f"{job['nodes'][status]} {status}" for status in STATUSES)
    show("nodes", f"{job['nodes']['done']} of {job['nodes']['total']} done: {counted}")


def node_row(node: dict, image: dict) -> dict:
    """Returns what the API says of a node and an image, for people."""
    name = image["image"].partition("@")[0].partition("/")[2]
    rules = " ".join(node["rules"])
    return {"node": node["id"], "ssm": node["ssm"]["state"], "rules": rules, "image": name} | {
        field: image.get(field, "") for field in ("state", "since")
    }


def done(job: dict) -> dict | None:
    """Returns a job once it is."""
    return job if job.get("state") == "done" else None


def finished(outcomes: Outcomes, job: str) -> dict | None:
    """Returns a job's row once every node of it has said something."""
    row = outcomes.job(job)
    return row if row and row.get("targets") == sum(row.get(status, 0) for status in STATUSES) else None


def job_row(job: dict) -> dict:
    """Returns what a job's row says, for people."""
    slowest = f"{job['slowest_seconds']:.1f} s on {job['slowest_node']}" if "slowest_node" in job else ""
    return {
        "job": job["pk"].removeprefix("job#"),
        "trigger": job["trigger"],
        "targets": job["targets"],
        **{status: job[status] for status in STATUSES},
        "bytes": f"{job['bytes']:,}",
        "slowest": slowest,
    }


def record_row(record: dict) -> dict:
    """Returns what a record says, for people."""
    image = {"image": f"{record['repository']}:{record['tag']}"}
    return (
        {name: record[name] for name in ("time", "node")}
        | image
        | {name: record[name] for name in ("attempt", "status", "seconds", "bytes")}
    )


def recorded(outcomes: Outcomes, jobs: list[str]) -> dict[str, list[dict]] | None:
    """Returns the records by their objects once there are some of every job."""
    objects = outcomes.objects()
    return objects if set(jobs) <= {record["job"] for records in objects.values() for record in records} else None


def reachable(cloud: LocalCloud, node: str) -> bool:
    """Returns whether SSM can reach the node."""
    filters = [{"Key": "InstanceIds", "Values": [node]}]
    known = cloud.client("ssm").describe_instance_information(Filters=filters)["InstanceInformationList"]
    return any(information["PingStatus"] == "Online" for information in known)


def step(title: str) -> None:
    """Prints the title of a step."""
    print(f"\n\033[1m{title}\033[0m", flush=True)


def show(what: str, value: str) -> None:
    """Prints one fact."""
    print(f"  {what:<11}{value}", flush=True)


def table(rows: list[dict]) -> None:
    """Prints the rows under their names."""
    print()
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in rows[0]}
    for row in [{name: name for name in widths}, *rows]:
        print("  " + "  ".join(f"{row[name]!s:<{width}}" for name, width in widths.items()))


if __name__ == "__main__":
    try:
        run()
    except (RuntimeError, TimeoutError) as error:
        sys.exit(f"The demo was not seen to its end: {error}")
