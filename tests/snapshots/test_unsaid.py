"""An answer that AWS leaves empty deletes no snapshot and ends no builder."""


def test_a_snapshot_is_not_deleted_because_ssm_does_not_say_whether_it_is_published(bakes, app):
    published = bakes.published()
    tags = [{"Key": "bake-snapshot/published"}]
    bakes.cloud.client("ec2").delete_tags(Resources=[published], Tags=tags)
    prune = {"prune": {"keep": 100, "execution": bakes.snapshots()[published]["tags"]["bake-snapshot/execution"]}}
    bakes.cloud.throttle("ssm", "GetParameters", 1, "Empty")
    error = bakes.stack.invoke("BakeSweep", prune)["error"]["errorMessage"]
    assert f"the answer to GetParameters lacks {bakes.prefix}/x86_64/snapshot" in error
    assert published in bakes.snapshots()
    swept = bakes.stack.invoke("BakeSweep", prune)
    because = {kept["snapshotId"]: kept["because"] for kept in swept["kept"]}
    assert (swept["deleted"], because[published]) == ([], "it is the published one")
    marked = [{"Key": "bake-snapshot/published", "Value": "2026-11-16T08:00:00Z"}]
    bakes.cloud.client("ec2").create_tags(Resources=[published], Tags=marked)


def test_no_snapshot_is_deleted_because_ec2_lists_nothing_that_might_keep_it(bakes, app):
    for _ in range(2):
        bakes.bake(force=True)
    before = list(bakes.snapshots())
    prune = {"prune": {"keep": 1, "execution": bakes.details(bakes.published())["execution"]}}
    lists = ("DescribeInstances", "DescribeSnapshots", "DescribeFastSnapshotRestores", "DescribeLaunchTemplates")
    for action in lists:
        bakes.cloud.throttle("ec2", action, 1, "Empty")
        error = bakes.stack.invoke("BakeSweep", prune)["error"]["errorMessage"]
        assert error.startswith(f"the answer to {action} lacks its list")
        assert list(bakes.snapshots()) == before
    assert bakes.stack.invoke("BakeSweep", prune)["deleted"] == before[:-1]


def test_a_builder_is_not_terminated_because_step_functions_does_not_say_whether_its_bake_runs(bakes, app):
    bakes.cloud.fault_state("StopBuilder", "pause", execution="unsaid")
    execution = bakes.start("unsaid", force=True)
    bakes.until_in(execution, "StopBuilder")
    [builder] = bakes.builders()
    bakes.cloud.throttle("states", "DescribeExecution", 1, "Empty")
    sweep = {"source": "aws.events", "detail-type": "Scheduled Event"}
    error = bakes.stack.invoke("BakeSweep", sweep)["error"]["errorMessage"]
    assert f"{builder['InstanceId']}: Step Functions does not say whether the execution {execution} is over" in error
    assert [row["InstanceId"] for row in bakes.builders("running")] == [builder["InstanceId"]]
    bakes.cloud.release("StopBuilder", "unsaid")
    bakes.succeeded(execution)


def test_what_is_said_of_a_snapshot_goes_before_it_so_that_a_refusal_is_made_good_later(bakes, app):
    for _ in range(2):
        bakes.bake(force=True)
    oldest = next(iter(bakes.snapshots()))
    bakes.cloud.throttle("ssm", "DeleteParameters", 99)
    error, cause = bakes.fail(force=True, keep=1)
    assert (error, "the parameters could not be deleted" in cause) == ("Prune", True)
    assert oldest in bakes.snapshots()
    bakes.cloud.forget_faults()
    bakes.bake(force=True, keep=1)
    assert list(bakes.snapshots()) == [bakes.published()]
    assert bakes.parameters().keys() == {f"{bakes.prefix}/x86_64/{name}" for name in ("snapshot", bakes.published())}
