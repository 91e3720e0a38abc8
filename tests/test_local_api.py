"""The local cloud's API Gateway answers as AWS's does, wherever the product relies on it."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from probe import credentials

from local.client import LocalCloud, until
from local.http_api import HttpApi

FORBIDDEN = (403, b'{"message":"Forbidden"}')


def test_a_function_is_handed_the_request_and_its_answer_is_the_response(api, record):
    answer = api.post("/things?a=1&a=2", {"answer": {"statusCode": 202, "headers": {"X-Own": "yes"}, "body": "done"}})
    assert (answer.status, answer.body, answer.headers["x-own"]) == (202, b"done", "yes")
    event = record()[-1]
    assert event["version"] == "2.0"
    assert event["routeKey"] == "POST /things"
    assert event["queryStringParameters"] == {"a": "1,2"}
    assert json.loads(event["body"])["answer"]["body"] == "done"
    assert event["requestContext"]["http"]["path"] == "/things"
    assert event["requestContext"]["authorizer"]["iam"]["userArn"].endswith(":root")


def test_what_stands_in_the_path_is_a_parameter(api, record):
    assert api.get("/things/a%20b").json() == {"path": "/things/a b"}
    assert record()[-1]["pathParameters"] == {"id": "a b"}


def test_a_body_that_is_no_text_is_encoded(api, record):
    api.send("POST", "/things", b"\x00\xff", {"content-type": "application/octet-stream"})
    assert (record()[-1]["body"], record()[-1]["isBase64Encoded"]) == ("AP8=", True)


def test_an_answer_without_a_status_is_the_body_itself(api):
    answer = api.post("/things", {"answer": {"n": 1}})
    assert (answer.status, answer.headers["content-type"], answer.json()) == (200, "application/json", {"n": 1})


@pytest.mark.parametrize("path", ["/", "/nowhere", "/things", "/things/a/b"])
def test_no_route_is_not_found(api, path):
    answer = api.get(path)
    assert (answer.status, answer.body) == (404, b'{"message":"Not Found"}')


def test_who_has_not_signed_is_refused(api):
    assert refusal(api.send("GET", "/things/1", sign=False)) == FORBIDDEN
    assert api.send("GET", "/open", sign=False).status == 200


@pytest.mark.parametrize(
    "forged",
    [
        {"aws_access_key_id": "AKIANOBODY", "aws_secret_access_key": "x"},
        {"aws_access_key_id": "test", "aws_secret_access_key": "wrong"},
    ],
    ids=["unknown key", "wrong secret"],
)
def test_a_wrong_signature_is_refused(cloud, probe_stack, forged):
    assert refusal(HttpApi(cloud, probe_stack["Api"], **forged).get("/things/1")) == FORBIDDEN


def test_a_signature_holds_for_its_request_only(api):
    headers = api.signed("GET", "/things/1", b"", {})
    assert api.send("GET", "/things/1", headers=headers, sign=False).status == 200
    assert refusal(api.send("GET", "/things/2", headers=headers, sign=False)) == FORBIDDEN
    posted = api.signed("POST", "/things", b"{}", {})
    assert refusal(api.send("POST", "/things", b"{} ", posted, sign=False)) == FORBIDDEN


def test_a_caller_may_call_what_their_policies_name(caller, record):
    assert caller.get("/things/1").status == 200
    assert record()[-1]["requestContext"]["authorizer"]["iam"]["userArn"].endswith("/test")
    assert refusal(caller.post("/things", {})) == FORBIDDEN


def test_a_user_is_a_caller_like_any_other(cloud, probe_stack):
    iam = cloud.client("iam")
    iam.create_user(UserName="eve")
    key = iam.create_access_key(UserName="eve")["AccessKey"]
    eve = HttpApi(
        cloud,
        probe_stack["Api"],
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    assert refusal(eve.get("/things/1")) == FORBIDDEN
    statement = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName="eve", PolicyName="all", PolicyDocument=document)
    assert eve.get("/things/1").status == 200


@pytest.mark.parametrize("size", [(10 << 20) + 1, 7 << 20], ids=["API Gateway's limit", "Lambda's limit"])
def test_a_large_body_reaches_no_function(api, record, size):
    before = len(record())
    answer = api.send("POST", "/things", b"x" * size, {"content-type": "text/plain"})
    assert (answer.status, answer.body) == (413, b'{"message":"Request Entity Too Large"}')
    assert len(record()) == before


def test_more_than_a_stage_takes_is_throttled(cloud, probe_stack, api):
    gateway = cloud.client("apigatewayv2")
    stage = {"ApiId": probe_stack["ApiId"], "StageName": "$default"}
    gateway.update_stage(**stage, DefaultRouteSettings={"ThrottlingBurstLimit": 3, "ThrottlingRateLimit": 1})
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: api.get(f"/things/{n}"), range(8)))
        refused = {refusal(answer) for answer in answers if answer.status != 200}
        assert refused == {(429, b'{"message":"Too Many Requests"}')}
        assert sum(answer.status == 200 for answer in answers) in (3, 4)
        time.sleep(1)
        assert api.get("/things/1").status == 200
    finally:
        gateway.update_stage(**stage, DefaultRouteSettings={})


@pytest.mark.parametrize("body", [{"poison": True}, {"answer": {"statusCode": 42}}], ids=["error", "no status"])
def test_a_function_that_fails_is_our_fault(api, body):
    answer = api.post("/things", body)
    assert (answer.status, answer.body) == (500, b'{"message":"Internal Server Error"}')


def test_an_api_that_may_not_invoke_the_function_is_our_fault(cloud, probe_stack, api):
    function = probe_stack["Function"]
    policy = json.loads(cloud.client("lambda").get_policy(FunctionName=function)["Policy"])
    [permission] = [s for s in policy["Statement"] if "/GET/open" in json.dumps(s)]
    cloud.client("lambda").remove_permission(FunctionName=function, StatementId=permission["Sid"])
    answer = api.get("/open")
    assert (answer.status, answer.body) == (500, b'{"message":"Internal Server Error"}')
    cloud.client("lambda").add_permission(
        FunctionName=function,
        StatementId=permission["Sid"],
        Action="lambda:InvokeFunction",
        Principal="apigateway.amazonaws.com",
        SourceArn=permission["Condition"]["ArnLike"]["AWS:SourceArn"],
    )
    assert api.get("/open").status == 200


def test_every_call_is_in_the_access_log(cloud, probe_stack, caller):
    own = caller.get("/things/logged").headers["apigw-requestid"]
    refused = caller.post("/things", {}).headers["apigw-requestid"]
    lines = until(lambda: access_log(cloud, probe_stack["AccessLogs"], own, refused), 5, "both lines")
    assert lines[own] | {"caller": ""} == {
        "id": own,
        "caller": "",
        "route": "GET /things/{id}",
        "path": "/things/logged",
        "status": "200",
        "error": "-",
        "none": "-",
    }
    assert lines[own]["caller"].startswith("arn:aws:sts:")
    assert (lines[refused]["status"], lines[refused]["error"]) == ("403", "Forbidden")


def refusal(answer) -> tuple[int, bytes]:
    return answer.status, answer.body


def access_log(cloud: LocalCloud, group: str, *ids: str) -> dict[str, dict] | None:
    events = cloud.client("logs").filter_log_events(logGroupName=group)["events"]
    lines = {line["id"]: line for line in (json.loads(event["message"]) for event in events)}
    return lines if lines.keys() >= set(ids) else None


@pytest.fixture
def api(cloud, probe_stack) -> HttpApi:
    return HttpApi(cloud, probe_stack["Api"])


@pytest.fixture
def caller(cloud, probe_stack) -> HttpApi:
    return HttpApi(cloud, probe_stack["Api"], **credentials(cloud, probe_stack["Caller"]))


@pytest.fixture
def record(probe_stack):
    return lambda: [json.loads(line) for line in Path(probe_stack["Record"]).read_text().splitlines()]
