"""Tests what the deployed stack makes of reports when AWS fails it, when it dies, and when a node needs a retry."""

from collections import Counter

import pytest
from jobs import SDK_TRIES
from settling import Settling, ended, line, node, outcomes
from uploaded import Uploaded

from local import images
from local.client import until

CLUSTER = {"aws:eks:cluster-name": "faults"}

FAULTS = [
    ("ssm", "GetCommandInvocation", "InvocationDoesNotExist", 1),
    ("ssm", "GetCommandInvocation", "ThrottlingException", SDK_TRIES),
    ("ssm", "ListCommands", "ThrottlingException", SDK_TRIES),
    ("dynamodb", "BatchGetItem", "UnprocessedKeys", 1),
    ("dynamodb", "BatchGetItem", "ThrottlingException", SDK_TRIES),
    ("dynamodb", "TransactWriteItems", "ThrottlingException", SDK_TRIES),
    ("dynamodb", "TransactWriteItems", "TransactionConflict", 6),
    ("dynamodb", "DeleteItem", "ThrottlingException", SDK_TRIES),
    ("s3", "PutObject", "SlowDown", SDK_TRIES),
    ("sqs", "SendMessageBatch", "ServiceUnavailable", SDK_TRIES),
    ("sqs", "SendMessageBatch", "Empty", 1),
]
pytestmark = pytest.mark.timeout(300)  # a node tries four times to reach a registry that is down, for some ten seconds
WRITES = ["dynamodb:TransactWriteItems", "s3:PutObject", "sqs:SendMessageBatch", "dynamodb:DeleteItem"]


@pytest.fixture(scope="module")
def stack(cloud):
    stack = Uploaded(cloud, name="faults")
    stack.deploy(ClusterName="faults")
    yield stack
    stack.delete()


@pytest.fixture(scope="module")
def settling(cloud, stack):
    return Settling(cloud, stack)


@pytest.fixture(scope="module")
def undisturbed(cloud, settling):
    """Returns what becomes of three nodes when nothing is in the way."""
    return Three(settling).settled()


@pytest.fixture(autouse=True)
def no_fault_is_left(cloud):
    yield
    cloud.forget_faults()


class Three:
    """A command on a node that pulls, one whose registry fails, and one that cannot be reached."""

    def __init__(self, settling: Settling):
        self.settling = settling
        self.names = {node(): name for name in ("warm", "failing", "unreachable")}
        warm, failing, unreachable = self.names
        image = settling.image()
        self.endings = {
            warm: ended(line(image)),
            failing: ended(line(image, "failed", "registry")),
            unreachable: {"details": "Undeliverable"},
        }

    def settled(self) -> dict:
        """Returns what became of them: the rows, the records and the retries."""
        command = self.settling.command(self.endings)
        self.settling.job(command, targets=3, pulled=1, failed=2)
        records = Counter(
            (self.names[r["node"]], r["status"], r["reason"]) for r in self.settling.outcomes.records(command)
        )
        return {**self.settling.state(command, self.names), "records": records}


@pytest.mark.parametrize(("service", "action", "code", "times"), FAULTS)
def test_nothing_is_lost_and_nothing_doubled(cloud, settling, undisturbed, service, action, code, times):
    function = settling.function("NodeResult")
    cloud.forget_calls()
    cloud.throttle(service, action, times, code, function=function)
    assert Three(settling).settled() == undisturbed
    assert cloud.calls(function=function)[f"{service}:{action}"] > times
    assert settling.letters() == []


def test_nothing_is_lost_while_s3_is_down(cloud, settling, undisturbed):
    function = settling.function("NodeResult")
    cloud.throttle("s3", "PutObject", 1_000_000, "ServiceUnavailable", function=function)
    threes = [Three(settling) for _ in range(5)]
    commands = [settling.command(three.endings) for three in threes]
    until(lambda: all((settling.outcomes.job(c) or {}).get("failed") == 2 for c in commands), 30, "the rows")
    assert settling.outcomes.outbox()
    cloud.forget_faults()
    settling.until_quiet()
    for three, command in zip(threes, commands, strict=True):
        records = Counter(three.names[record["node"]] for record in settling.outcomes.records(command))
        assert records == {"warm": 1, "failing": 1, "unreachable": 1}
        assert {**settling.state(command, three.names), "records": undisturbed["records"]} == undisturbed
    assert settling.letters() == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("write", WRITES)
def test_a_function_killed_between_its_writes_ends_with_the_same(cloud, settling, undisturbed, write, when):
    cloud.kill(settling.function("NodeResult"), *write.split(":"), when)
    assert Three(settling).settled() == undisturbed
    assert settling.letters() == []
    assert not settling.outcomes.outbox()


# ── Retries ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_node_whose_registry_comes_back_moves_its_job_from_failed_to_pulled(cloud, stack, settling):
    warm = unannounced(cloud)
    cloud.image_status(warm, "none")  # its containerd runs
    with cloud.holding_events("aws.ecr") as take:
        cloud.push("team/back", "v1", images.image("back"))
        [pushed] = take()
    cloud.turn_registry(up=False)
    cloud.send_event(pushed)
    digest = pushed["detail"]["image-digest"]
    [command] = until(lambda: [c for c in stack.commands("push") if digest in c["Parameters"]["images"][0]], 20)
    first = settling.job(command["CommandId"], failed=1)
    assert (first["pulled"], first["retried"]) == (0, 0)
    cloud.turn_registry(up=True)
    settling.job(command["CommandId"], pulled=1, failed=0)
    row = settling.outcomes.nodes(command["CommandId"])[warm]
    assert (row["status"], row["retrying"]) == ("pulled", False)
    assert row["attempt"] > 1
    records = settling.outcomes.records(command["CommandId"])
    assert sorted(record["attempt"] for record in records) == list(range(1, row["attempt"] + 1))
    assert [record["status"] for record in sorted(records, key=lambda r: r["attempt"])][-1] == "pulled"
    cloud.terminate(warm)


def test_a_node_that_fails_every_try_is_tried_three_times_and_then_counted_as_failed(cloud, stack, settling):
    image = settling.image()
    endings = [ended(line(image, "failed", "registry"))] * 3
    failing = scripted(cloud, *endings)
    before = settling.metric("NodesFailed", ClusterName="faults", Reason="registry")
    job = settling.command({failing: ended(line(image, "failed", "registry"))})
    settling.job(job, failed=1, retried=2)
    row = settling.outcomes.nodes(job)[failing]
    assert (row["attempt"], row["retrying"], outcomes(row)) == (3, False, [("failed", "registry")])
    tries = [c["Comment"] for c in stack.commands("push") if f"job={job}" in c["Comment"]]
    assert tries == [f"push rule=default attempt={n} job={job}" for n in (3, 2)]
    assert settling.metric("NodesFailed", ClusterName="faults", Reason="registry") == before + 1
    assert settling.alarm("NodesFailed") == "ALARM"
    assert [record["retrying"] for record in sorted(settling.outcomes.records(job), key=lambda r: r["attempt"])] == [
        True, True, False,
    ]  # fmt: skip
    cloud.terminate(failing)


def test_only_the_images_that_failed_are_tried_again(cloud, stack, settling):
    fine, failed = settling.image("fine"), settling.image("failed")
    failing = scripted(cloud, ended(line(failed)))
    job = settling.command({failing: ended(line(fine), line(failed, "failed", "timeout"))}, fine, failed)
    settling.job(job, pulled=1, failed=0, retried=1)
    [again] = [c for c in stack.commands("push") if f"job={job}" in c["Comment"]]
    assert again["Parameters"]["images"] == [failed]
    cloud.terminate(failing)


def test_a_node_that_is_gone_is_not_tried_again(cloud, stack, settling):
    image = settling.image()
    gone = scripted(cloud)
    cloud.terminate(gone)
    job = settling.command({gone: ended(line(image, "failed", "registry"))})
    settling.job(job, failed=1)
    for queue in ("ResultQueue", "NodeQueue"):
        until(lambda queue=queue: not waiting(cloud, settling.resources[queue]), 20, "the try to be dropped")
    assert not [c for c in stack.commands("push") if f"job={job}" in c["Comment"]]


def unannounced(cloud, **knobs) -> str:
    """Returns a node that SSM can reach, of whose launch nobody was told."""
    with cloud.holding_events("aws.ec2"):
        node = cloud.launch(CLUSTER, online_after=0, **knobs)
        cloud.until_online(node)
    return node


def scripted(cloud, *endings: dict) -> str:
    """Returns such a node, whose next commands end so."""
    return unannounced(cloud, containerd="none", endings=endings)


def waiting(cloud, queue: str) -> bool:
    counts = [
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesDelayed",
    ]
    attributes = cloud.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=counts)["Attributes"]
    return any(attributes[name] != "0" for name in counts)
