"""Has DynamoDB's transactions that meet on a row conflict, and gives a stack's tables TTL, recovery and encryption."""

import asyncio
import json

from local.api import Response, answer
from local.cloudformation.resources import boolean, complete, succeed
from local.ministack import app, dynamodb

TRANSACTION_SECONDS = 0.005
"""Says how long a transaction has its rows, on AWS some 10 ms: another that wants one meanwhile is cancelled."""

CANCELLATIONS = ("TransactionConflict", "ProvisionedThroughputExceeded", "ThrottlingError")
"""Reasons for which AWS cancels a transaction whatever its conditions say (TransactWriteItems, CancellationReasons)."""

SINGLE_WRITES = {"PutItem": "Item", "UpdateItem": "Key", "DeleteItem": "Key"}

Row = tuple[str, str]

_seconds = TRANSACTION_SECONDS
_held: set[Row] = set()
_tokens: set[str] = set()


def install() -> None:
    """Stands in front of ministack's tables, and completes their CloudFormation resource."""
    app.SERVICE_HANDLERS["dynamodb"] = handle
    complete("AWS::DynamoDB::Table", _configure, _delete)


def slow_down(seconds: float) -> None:
    """Has transactions take that long from now on."""
    global _seconds
    _seconds = seconds


async def handle(method: str, path: str, headers: dict, body: bytes, query: dict) -> Response:
    """Answers one request; a transaction takes its time, and nobody else writes its rows meanwhile."""
    operation = headers.get("x-amz-target", "").rpartition(".")[2]
    request = json.loads(body or "{}")
    if operation in SINGLE_WRITES and _row(request) in _held:
        return _error("TransactionConflictException", "Transaction is ongoing for the item")
    if operation != "TransactWriteItems":
        return await dynamodb.handle_request(method, path, headers, body, query)
    rows = {_row(write) for item in request.get("TransactItems", []) for write in item.values()} - {None}
    token = request.get("ClientRequestToken", "")
    if token in _tokens:
        return _error("TransactionInProgressException", "The transaction with the given request token is in progress.")
    if rows & _held:
        return _cancelled(request, lambda operation, write: _row(write) in _held, "TransactionConflict")
    _held.update(rows)
    _tokens.update({token} - {""})
    try:
        await asyncio.sleep(_seconds)
        return await dynamodb.handle_request(method, path, headers, body, query)
    finally:
        _held.difference_update(rows)
        _tokens.discard(token)


def cancelled(request: dict, reason: str) -> Response:
    """Returns the cancellation of a transaction for its updates, the rows that others write too."""
    return _cancelled(request, lambda operation, write: operation == "Update", reason)


def unprocessed(request: dict) -> Response:
    """Returns the answer to a BatchGetItem of which nothing was read."""
    tables = request["RequestItems"]
    return answer({"Responses": {table: [] for table in tables}, "UnprocessedKeys": tables})


def _row(write: dict) -> Row | None:
    """Returns which row a write is about."""
    table = dynamodb._tables.get(dynamodb._normalize_table_name(write.get("TableName", "")))
    key = write.get("Item") or write.get("Key")
    if not table or not key:
        return None
    return table["TableName"], json.dumps([key.get(table["pk_name"]), key.get(table["sk_name"])], sort_keys=True)


def _cancelled(request: dict, hit, reason: str) -> Response:
    codes = [reason if hit(*next(iter(item.items()))) else "None" for item in request["TransactItems"]]
    message = "Transaction cancelled, please refer cancellation reasons for specific reasons"
    reasons = [{"Code": code} for code in codes]
    return _error("TransactionCanceledException", f"{message} [{', '.join(codes)}]", CancellationReasons=reasons)


def _error(code: str, message: str, **more) -> Response:
    body = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "Message": message, **more}
    return 400, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(body).encode()


def _configure(name: str, properties: dict) -> None:
    """Applies the properties of a stack's table that ministack leaves out."""
    dynamodb._ttl_settings.pop(name, None)
    if ttl := properties.get("TimeToLiveSpecification"):
        enabled = boolean(ttl["Enabled"])
        specification = {"AttributeName": ttl.get("AttributeName", ""), "Enabled": enabled}
        succeed(dynamodb._update_ttl({"TableName": name, "TimeToLiveSpecification": specification}))
    recovery = properties.get("PointInTimeRecoverySpecification", {})
    dynamodb._pitr_settings[name] = boolean(recovery.get("PointInTimeRecoveryEnabled"))
    encryption = dict(properties.get("SSESpecification", {}))
    enabled = boolean(encryption.pop("SSEEnabled", False))
    dynamodb._tables[name]["SSEDescription"] = (
        dynamodb._sse_description_from_spec({"Enabled": True, **encryption}) if enabled else None
    )


def _delete(name: str) -> None:
    table = dynamodb._tables.get(name)
    if table and table.get("DeletionProtectionEnabled"):
        raise ValueError(f"Resource cannot be deleted as it is currently protected against deletion: table {name}")
    dynamodb.drop_stream_records(name, dynamodb._tables.pop(name, None))
    dynamodb._ttl_settings.pop(name, None)
    dynamodb._pitr_settings.pop(name, None)
