"""Changes SQS as a Lambda event source: whole batches, batching windows, checked mappings, scaled waiting."""

import hashlib
import time
import uuid

from local import background
from local.iam import permissions
from local.ministack import concurrency, lambda_svc, provisioners, sqs
from local.settings import scaled

MAX_BATCH = 10_000
"""The largest BatchSize of a standard queue (Lambda, CreateEventSourceMapping)."""

MAX_WINDOW = 300
"""The longest MaximumBatchingWindowInSeconds (Lambda, CreateEventSourceMapping)."""

CONCURRENCY = range(2, 1001)
"""The MaximumConcurrency that a queue's mapping may have (Lambda, ScalingConfig)."""

MAX_DELAY = 900
"""The longest DelaySeconds of a message (SQS, SendMessage)."""

WINDOW = "MaximumBatchingWindowInSeconds"
SOURCE_ACTIONS = ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")

_send_message = sqs._act_send_message
_queue_delay = sqs.queue_delay
_run_batch = lambda_svc._run_sqs_batch
_create_mapping = provisioners._lambda_esm_create
_update_mapping = provisioners._lambda_esm_update

_waiting_since: dict[str, float] = {}


def install() -> None:
    """Replaces the polling of ministack's event source mappings and scales the delays of queues."""
    sqs._act_send_message = sqs._HANDLERS["SendMessage"] = _send
    sqs.queue_delay = lambda queue: scaled(_queue_delay(queue))
    sqs._receive_messages_for_esm = _receive
    lambda_svc._run_sqs_batch = _run
    lambda_svc._ESM_BACKOFF_SECONDS = 0  # what a failed function leaves is invisible long enough
    mappings = provisioners._RESOURCE_HANDLERS["AWS::Lambda::EventSourceMapping"]
    mappings |= {"create": _checked_create, "update": _checked_update}


def put(queue: dict, body: str, attributes: dict[str, str] | None = None) -> None:
    """Puts a message into a queue on behalf of an AWS service."""
    now = time.time()
    message = {
        "id": str(uuid.uuid4()),
        "body": body,
        "md5_body": hashlib.md5(body.encode()).hexdigest(),
        "sent_at": now,
        "visible_at": now + sqs.queue_delay(queue),
        "message_attributes": {
            name: {"DataType": "String", "StringValue": value} for name, value in (attributes or {}).items()
        },
    }
    sqs._ensure_msg_fields(message)
    with sqs._queues_lock:
        queue["messages"].append(message)
    _wake_at(message["visible_at"])


def _send(data: dict, url: str) -> dict:
    """SendMessage, its delay refused as AWS does and then scaled."""
    delay = data.get("DelaySeconds")
    if delay is not None and not 0 <= int(delay) <= MAX_DELAY:
        raise sqs._Err(
            "InvalidParameterValue",
            f"Value {delay} for parameter DelaySeconds is invalid."
            f" Reason: DelaySeconds must be >= 0 and <= {MAX_DELAY}.",
        )
    result = _send_message(data, url)
    for message in sqs._get_q(data.get("QueueUrl", url))["messages"]:
        if message["id"] == result["MessageId"]:
            message["visible_at"] = message["sent_at"] + scaled(message["visible_at"] - message["sent_at"])
            _wake_at(message["visible_at"])
    return result


def _receive(url: str, size: int) -> list[dict]:
    """Takes a batch for a function once it is full or its batching window has passed."""
    now = time.time()
    with sqs._queues_lock:
        queue = sqs._get_q(url)
        sqs._expire_retained(queue)
        sqs._dlq_sweep(queue)
        visible = sum(message["visible_at"] <= now for message in queue["messages"])
        if not visible:
            return []
        window_end = _waiting_since.setdefault(url, now) + scaled(_batching_window(queue))
        if visible < size and now < window_end:
            _wake_at(window_end)
            return []
        del _waiting_since[url]
        return sqs._collect_msgs(queue, min(size, MAX_BATCH), _visibility_timeout(queue))


def _run(mapping: dict, function: dict, event: dict, batch: list[dict], url: str, name: str) -> None:
    """Runs a batch; what it hands back is visible again once the scaled visibility timeout has passed."""
    _run_batch(mapping, function, event, batch, url, name)
    handled = {message["receipt_handle"] for message in batch}
    with sqs._queues_lock:
        queue = sqs._get_q(url)
        visible_at = time.time() + scaled(_visibility_timeout(queue))
        for message in queue["messages"]:
            if message["receipt_handle"] in handled:
                message["visible_at"] = visible_at
    _wake_at(visible_at)


def _checked_create(logical_id: str, properties: dict, stack: str) -> tuple[str, dict]:
    """Creates an event source mapping, or refuses what Lambda would."""
    return _create_mapping(logical_id, _checked(properties), stack)


def _checked_update(name: str, old: dict, new: dict, *rest) -> tuple[str, dict]:
    """Updates an event source mapping, or refuses what Lambda would."""
    return _update_mapping(name, _with_numbers(old), _checked(new), *rest)


def _checked(properties: dict) -> dict:
    """Returns a mapping's properties as Lambda takes them."""
    properties = _with_numbers(properties)
    arn = properties.get("EventSourceArn", "")
    queue = sqs._queue_by_arn(arn)
    if queue:
        _, config, _ = lambda_svc._get_func_record_for_ref(properties["FunctionName"])
        for fault in _mapping_faults(properties, arn, queue, config):
            raise ValueError(f"Invalid request provided: {fault} (Service: Lambda, Status Code: 400)")
    return properties


def _with_numbers(properties: dict) -> dict:
    """Returns a mapping's properties with numbers where a parameter gave a template their text."""
    numbers = {name: int(properties[name]) for name in ("BatchSize", WINDOW) if name in properties}
    if "ScalingConfig" in properties:
        scaling = {name: int(value) for name, value in properties["ScalingConfig"].items()}
        numbers["ScalingConfig"] = scaling
    return {**properties, **numbers}


def _mapping_faults(properties: dict, arn: str, queue: dict, config: dict) -> list[str]:
    faults = []
    size, window = properties.get("BatchSize", 10), properties.get(WINDOW, 0)
    at_once = properties.get("ScalingConfig", {}).get("MaximumConcurrency", CONCURRENCY[0])
    if not 1 <= size <= MAX_BATCH:
        faults.append(f"BatchSize must be between 1 and {MAX_BATCH}.")
    if not 0 <= window <= MAX_WINDOW:
        faults.append(f"MaximumBatchingWindowInSeconds must be between 0 and {MAX_WINDOW}.")
    if at_once not in CONCURRENCY:
        faults.append(f"MaximumConcurrency must be between {CONCURRENCY[0]} and {CONCURRENCY[-1]}.")
    if size > 10 and window < 1:
        faults.append("Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10")
    timeout, visibility = int(config.get("Timeout", 3)), _visibility_timeout(queue)
    if visibility < timeout:
        faults.append(
            f"Queue visibility timeout: {visibility} seconds is less than Function timeout: {timeout} seconds"
        )
    for action in SOURCE_ACTIONS:
        if not permissions.role_may(config["Role"], f"sqs:{action}", arn):
            faults.append(f"The function execution role does not have permissions to call {action} on SQS")
    return faults


def _batching_window(queue: dict) -> int:
    arn = queue["attributes"]["QueueArn"]
    windows = [
        int(mapping.get("MaximumBatchingWindowInSeconds") or 0)
        for _, _, mapping in lambda_svc._iter_all_esms()
        if mapping["EventSourceArn"] == arn
    ]
    return max(windows, default=0)


def _visibility_timeout(queue: dict) -> int:
    return int(queue["attributes"].get("VisibilityTimeout", "30"))


def _wake_at(moment: float) -> None:
    """Has the pollers look again at that moment instead of at their next round."""
    seconds = moment - time.time()
    if seconds <= 0:
        concurrency.esm_wake.set()
    else:
        background.later(seconds, concurrency.esm_wake.set)
