"""The local cloud's tables and buckets answer as AWS's do, wherever the product relies on it."""

import base64
import contextlib
import http.client
import zlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from probe import credentials, invoke, refused
from roles import make_role

from local.client import LocalCloud

# ── DynamoDB ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_transaction_is_carried_out_whole_or_not_at_all(table):
    table.write(put("whole", "a"), put("whole", "b"))
    with cancelled("ConditionalCheckFailed", "None"):
        table.write(put("whole", "a", ConditionExpression="attribute_not_exists(pk)"), put("whole", "c"))
    assert table.rows("whole").keys() == {"a", "b"}


def test_transactions_that_meet_on_a_row_conflict_and_none_is_carried_out_in_part(cloud, table):
    def write(n: int) -> bool:
        try:
            table.write(put("shared", str(n)), add("shared", "job"))
        except ClientError as error:
            assert "[None, TransactionConflict]" in str(error)
            return False
        return True

    with cloud.slow_transactions(0.5), ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(write, range(4)))
    assert set(outcomes) == {True, False}
    rows = table.rows("shared")
    assert rows.pop("job")["pulled"] == {"N": str(outcomes.count(True))}
    assert rows.keys() == {str(n) for n in range(4) if outcomes[n]}


def test_one_request_token_is_carried_out_once(table):
    for _ in range(2):
        table.write(add("token", "job"), ClientRequestToken="a-token")
    assert table.rows("token")["job"]["pulled"] == {"N": "1"}
    with refused("IdempotentParameterMismatchException"):
        table.write(add("token", "another"), ClientRequestToken="a-token")


def test_a_role_writes_rows_of_the_partitions_that_its_policy_names_and_no_others(cloud, table):
    arn = cloud.client("dynamodb").describe_table(TableName=table.name)["Table"]["TableArn"]
    partitions = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["launch#*"]}}
    may = {"Effect": "Allow", "Action": "dynamodb:PutItem", "Resource": arn, "Condition": partitions}
    role = make_role(cloud, "launch-rows", "lambda.amazonaws.com", may)
    launches = Table(cloud, table.name, **credentials(cloud, role))
    launches.write(put("launch#a", "1"), put("launch#b", "1"))
    for others in ([put("job#a", "1")], [put("launch#a", "2"), put("job#a", "1")]):
        with refused("AccessDeniedException"):
            launches.write(*others)
    assert table.rows("launch#a").keys() == {"1"}
    assert not table.rows("job#a")


@pytest.mark.parametrize(
    "writes",
    [
        [("many", str(n), {}) for n in range(101)],
        [("twice", "a", {}), ("twice", "a", {})],
        [("large", str(n), {"body": {"S": "x" * 380_000}}) for n in range(12)],
    ],
    ids=["101 writes", "two on one row", "more than 4 MB"],
)
def test_a_transaction_that_aws_would_refuse_is_refused(table, writes):
    with refused("ValidationException"):
        table.write(*({"Put": {"Item": key(pk, sk) | more}} for pk, sk, more in writes))


def test_an_update_adds_to_what_is_there_and_sets_what_is_not(table):
    for trigger in ("push", "launch"):
        table.write(add("added", "job", trigger))
    row = table.rows("added")["job"]
    assert (row["pulled"], row["trigger"]) == ({"N": "2"}, {"S": "push"})


def test_a_batch_has_the_rows_that_are_there_and_up_to_100_keys(table):
    table.write(put("read", "a"))
    assert [row["sk"]["S"] for row in table.read("read", "a", "b")["Responses"][table.name]] == ["a"]
    with refused("ValidationException"):
        table.read("read", *map(str, range(101)))


def test_tables_can_be_made_to_conflict_to_throttle_and_to_leave_keys_unread(cloud, table):
    cloud.throttle("dynamodb", "TransactWriteItems", 1, "TransactionConflict")
    with cancelled("None", "TransactionConflict"):
        table.write(put("ordered", "a"), add("ordered", "job"))
    cloud.throttle("dynamodb", "TransactWriteItems", 1, "ThrottlingException", skip=1)
    table.write(put("ordered", "a"))
    with refused("ThrottlingException"):
        table.write(put("ordered", "b"))
    cloud.throttle("dynamodb", "BatchGetItem", 1, "UnprocessedKeys")
    assert table.read("ordered", "a")["UnprocessedKeys"][table.name]["Keys"] == [key("ordered", "a")]


def test_a_table_of_a_stack_lets_rows_expire_and_is_recoverable_and_encrypted(cloud, probe_stack):
    dynamodb, name = cloud.client("dynamodb"), probe_stack["Table"]
    expiry = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    assert expiry == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}
    backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
    assert dynamodb.describe_table(TableName=name)["Table"]["SSEDescription"]["Status"] == "ENABLED"


# ── S3 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bucket_of_a_stack_is_private_encrypted_and_lets_objects_expire(cloud, probe_stack):
    s3, bucket = cloud.client("s3"), {"Bucket": probe_stack["Store"]}
    encryption = s3.get_bucket_encryption(**bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert encryption[0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert set(s3.get_public_access_block(**bucket)["PublicAccessBlockConfiguration"].values()) == {True}
    records, uploads = s3.get_bucket_lifecycle_configuration(**bucket)["Rules"]
    assert (records["Filter"]["Prefix"], records["Expiration"]["Days"]) == ("records/", 90)
    assert uploads["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    ownership = s3.get_bucket_ownership_controls(**bucket)["OwnershipControls"]["Rules"]
    assert ownership == [{"ObjectOwnership": "BucketOwnerEnforced"}]


def test_an_object_is_taken_under_the_buckets_own_host_in_chunks_with_a_checksum_behind_them(cloud, probe_stack):
    body = b'{"status":"pulled"}\n'
    checksum = base64.b64encode(zlib.crc32(body).to_bytes(4)).decode()
    assert put_in_chunks(cloud, probe_stack["Store"], "records/chunked.jsonl", body, checksum) == 200
    stored = cloud.client("s3").get_object(Bucket=probe_stack["Store"], Key="records/chunked.jsonl")
    assert stored["Body"].read() == body
    assert put_in_chunks(cloud, probe_stack["Store"], "records/damaged.jsonl", body, "AAAAAA==") == 400


def test_a_function_writes_objects_only_where_its_role_lets_it(cloud, probe_stack):
    def answer(key: str) -> dict:
        request = {"Bucket": probe_stack["Store"], "Key": key, "Body": "a line"}
        return invoke(cloud, probe_stack, {"calls": [["s3", "put_object", request]]})

    assert "errorMessage" not in answer("records/mine.jsonl")
    assert answer("elsewhere.jsonl")["errorType"] == "Runtime.ExitError"


def test_s3_can_be_away(cloud, probe_stack):
    s3 = cloud.client("s3", config=Config(retries={"total_max_attempts": 1}))
    cloud.throttle("s3", "PutObject", 1, "ServiceUnavailable")
    with refused("ServiceUnavailable") as error:
        s3.put_object(Bucket=probe_stack["Store"], Key="records/away.jsonl", Body="")
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    s3.put_object(Bucket=probe_stack["Store"], Key="records/away.jsonl", Body="")


# ── Helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Table:
    """The stack's table, its refusals left to the test."""

    def __init__(self, cloud: LocalCloud, name: str, **caller: str):
        self.name = name
        self._dynamodb = cloud.client("dynamodb", config=Config(retries={"total_max_attempts": 1}), **caller)

    def write(self, *writes: dict, **more: str) -> None:
        """Writes in one transaction."""
        named = [{kind: {"TableName": self.name, **write}} for item in writes for kind, write in item.items()]
        self._dynamodb.transact_write_items(TransactItems=named, **more)

    def read(self, pk: str, *sks: str) -> dict:
        """Reads in one batch."""
        request = {"Keys": [key(pk, sk) for sk in sks], "ConsistentRead": True}
        return self._dynamodb.batch_get_item(RequestItems={self.name: request})

    def rows(self, pk: str) -> dict[str, dict]:
        """Returns a partition's rows by sort key."""
        condition = {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": {"S": pk}}}
        found = self._dynamodb.query(TableName=self.name, ConsistentRead=True, **condition)["Items"]
        return {row["sk"]["S"]: row for row in found}


@pytest.fixture(scope="module")
def table(cloud, probe_stack):
    return Table(cloud, probe_stack["Table"])


def key(pk: str, sk: str) -> dict:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def put(pk: str, sk: str, **more: str) -> dict:
    return {"Put": {"Item": key(pk, sk), **more}}


def add(pk: str, sk: str, trigger: str = "push") -> dict:
    update = {
        "Key": key(pk, sk),
        "UpdateExpression": "ADD pulled :one SET #trigger = if_not_exists(#trigger, :trigger)",
        "ExpressionAttributeNames": {"#trigger": "trigger"},
        "ExpressionAttributeValues": {":one": {"N": "1"}, ":trigger": {"S": trigger}},
    }
    return {"Update": update}


@contextlib.contextmanager
def cancelled(*codes: str):
    """Expects a transaction to be cancelled for these reasons."""
    with refused("TransactionCanceledException") as error:
        yield
    assert [reason["Code"] for reason in error.value.response["CancellationReasons"]] == list(codes)


def put_in_chunks(cloud: LocalCloud, bucket: str, key: str, body: bytes, checksum: str) -> int:
    """Puts an object as SDKs do over TLS, and returns the status."""
    request = AWSRequest("PUT", f"http://{bucket}.s3.{cloud.region}.amazonaws.com/{key}", headers={
        "Content-Encoding": "aws-chunked",
        "X-Amz-Decoded-Content-Length": str(len(body)),
        "X-Amz-Trailer": "x-amz-checksum-crc32",
    })  # fmt: skip
    request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
    S3SigV4Auth(Credentials(cloud.access_key_id, cloud.secret_access_key), "s3", cloud.region).add_auth(request)
    chunks = b"%x\r\n%s\r\n0\r\nx-amz-checksum-crc32:%s\r\n\r\n" % (len(body), body, checksum.encode())
    host = f"{bucket}.s3.{cloud.region}.amazonaws.com"
    connection = http.client.HTTPConnection(urlsplit(cloud.endpoint).netloc)
    connection.request("PUT", f"/{key}", chunks, {**dict(request.headers.items()), "Host": host})
    return connection.getresponse().status
