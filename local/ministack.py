"""Names every part of ministack that ours use or replace, each with the reason; no other file imports ministack.

ministack promises none of these names, so a newer version may lack some: `load`, which the server calls first, says
which. A part is imported when a name of it is first used, as ministack reads its environment then.
"""

import importlib
from typing import Any


class Part:
    """A module of ministack, of which nothing is used but the names listed here."""

    def __init__(self, module: str, **names: str):
        """Lists the names of a module, and why each is used."""
        vars(self).update(module=f"ministack.{module}", names=names, _imported=None)

    def __getattr__(self, name: str) -> Any:
        """Returns what ministack has under a listed name now."""
        return getattr(self._loaded(name), name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Replaces what ministack has under a listed name."""
        setattr(self._loaded(name), name, value)

    def missing(self) -> list[str]:
        """Returns the listed names that ministack does not have."""
        return [f"{self.module}.{name}" for name in self.names if not hasattr(self._loaded(name), name)]

    def _loaded(self, name: str) -> Any:
        if name not in self.names:
            raise AttributeError(f"{self.module}.{name} is not listed in local/ministack.py")
        if self._imported is None:
            vars(self)["_imported"] = importlib.import_module(self.module)
        return self._imported


def parts() -> dict[str, Part]:
    """Returns all parts by the names that they are imported under."""
    return {name: part for name, part in globals().items() if isinstance(part, Part)}


def load() -> None:
    """Imports all parts; raises where ministack lacks a name that ours build upon."""
    if missing := [name for part in parts().values() for name in part.missing()]:
        raise RuntimeError(f"This version of ministack lacks {', '.join(missing)}: see local/ministack.py.")


# ── The server ──────────────────────────────────────────────────────────────────────────────────────────────────────

app = Part(
    "app",
    SERVICE_HANDLERS="which handler answers for a service: ours stand in front of ministack's",
    _EXECUTE_API_RE="the host names of HTTP APIs: AWS's own are added",
    _dispatch_service_request="the one place that all API calls pass: they are counted there, and fail where told to",
    _handle_ecr_registry_request="the registry's HTTP API: the real registry answers it",
    _handle_execute_api_request="calls of HTTP APIs: ours check and limit them as AWS does",
    _handle_post_body_shortcuts="the first look at a request: answers of custom resources are taken there",
    _is_ecr_registry_path="tells a registry's path from an API's",
    _parse_execute_api_url="finds the API and the path in a URL",
    _resolve_stage_and_path="parts a path into stage and rest",
    _routing_params="the parameters by which a service is told",
    app="the ASGI application, which ours wraps",
    pin_request_origin="the connection that policies see: it counts as TLS",
)
arns = Part("core.arn", execute_api_arn="writes the ARN of an HTTP API's route")
concurrency = Part(
    "core.concurrency",
    esm_wake="wakes the pollers of event source mappings",
    run_reentrant="runs a function off the event loop, in the caller's account and Region",
)
iam_actions = Part(
    "core.iam_actions",
    access_denied_response="writes a refusal in any service's protocol",
    dynamodb_service_context="the keys of DynamoDB's conditions: those of transactions are added",
    extract_iam_action="names the action of a request: some are checked elsewhere, some go by another name",
    extract_resource_arn="names the resource of a request: some are AWS's, where ministack says *",
    identity_denial_message="writes AWS's sentence of who may not do what",
)
iam_evaluator = Part(
    "core.iam_evaluator",
    AuthError="a caller who is unknown",
    CredentialResolutionError="credentials that are unknown",
    EvalContext="a question to the evaluator",
    ParsedStatement="a statement of a policy, for the simulation",
    _gather_role_policies="all policies of a role, for checks on behalf of a service",
    _gather_user_policies="all policies of a user, for the simulation",
    _permissions_boundary="the boundary of a role or user",
    _resolve_condition_key="finds a condition's key in a context, for the simulation",
    enforce="decides of a caller's action on one of several resources",
    evaluate="decides of an action by policies",
    evaluate_resource_policy="decides of a service's action by a resource's policy",
    evaluate_trust_policy="decides whether a service may assume a role",
    pin_request_origin="sets the connection that policies see",
    resolve_caller_identity="tells who an access key belongs to",
    resolve_credential="finds the secret of an access key, to check a signature",
)
lambda_runtime = Part(
    "core.lambda_runtime",
    ProvidedWorker="a function's process; its _pump_output is replaced, as the printed metrics are read there",
    _lock="guards the processes, to find one that is to be killed",
    _workers="the processes of functions, by which one that calls AWS is known and killed",
)
responses = Part(
    "core.responses",
    error_response_json="writes an error of the JSON protocol",
    json_response="writes an answer of the JSON protocol",
    now_iso="the time as Step Functions stores it",
)
router = Part(
    "core.router",
    detect_service="tells the service of a request",
    extract_access_key_id="finds the access key of a request",
)
sigv4 = Part(
    "core.sigv4",
    header_signature_failure="checks a signature",
    parse_header_signature="reads a signature from the headers",
    parse_query_signature="reads a signature from the query",
    request_time_failure="checks the time of a signature",
)

# ── CloudFormation ──────────────────────────────────────────────────────────────────────────────────────────────────

changesets = Part("services.cloudformation.changesets", _add_event="a stack's event: it goes to the default bus too")
custom_resource = Part(
    "services.cloudformation.custom_resource",
    _gateway_url="the endpoint that answers of custom resources are put to",
    _normalise_resource_properties="writes a custom resource's properties as texts",
    invoke_custom_resource="how a custom resource is made: ours waits for a signed answer",
)
engine = Part(
    "services.cloudformation.engine",
    _evaluate_conditions="the conditions of a template, for make check",
    _evaluate_rules="the rules of a template, for make check",
    _parse_template="reads a template, for make check",
    _resolve_parameters="the values of a template's parameters, for make check",
    _resolve_refs="the references in a template's part, for make check",
)
handlers = Part("services.cloudformation.handlers", _add_event="a stack's event: it goes to the default bus too")
provisioners = Part(
    "services.cloudformation.provisioners",
    _RESOURCE_HANDLERS="who makes, updates and deletes a resource type: ours are added or wrapped",
    _STACK_TAG_PROPERTY="the property that takes a stack's tags, for AWS::SSM::Document",
    _delete_predecessor="deletes what a resource has replaced",
    _iam_role_delete="deletes a role, within ours",
    _lambda_esm_create="makes an event source mapping, within ours",
    _lambda_esm_update="updates an event source mapping, within ours",
    _physical_name="makes up the name of a resource that has none",
    _reconcile_tag_map="updates the tags of a resource",
    _seeded_create="makes what replaces a resource, under another name",
    _sfn_definition="a state machine's definition with its substitutions",
    _sfn_service_error="a refusal of Step Functions as the reason of a stack's failure",
)
stacks = Part(
    "services.cloudformation.stacks",
    CLIENT_REQUEST_TOKEN="the token that a stack's events carry",
    _add_event="a stack's event: it goes to the default bus too",
)

# ── Services ────────────────────────────────────────────────────────────────────────────────────────────────────────

apigateway = Part(
    "services.apigateway",
    _apis="the HTTP APIs",
    _extract_lambda_ref_from_integration_uri="the function of an integration",
    _extract_path_params="the values of a route's variables",
    _integrations="the integrations, which an OpenAPI body replaces",
    _match_route="finds the route of a call",
    _routes="the routes, which an OpenAPI body replaces",
    _stages="the stages with their throttling and access logs",
    _v2_request_body_is_text="tells whether a function gets a body as text",
    decode_http_api_path="decodes a path as API Gateway does",
)
autoscaling = Part(
    "services.autoscaling",
    _asgs="the groups, to which instances are added by their tags",
    _error="writes an error of Auto Scaling",
    _hooks="the lifecycle hooks, which a launch waits for",
    _instance_member_xml="writes an instance of a group",
    _parse_member_list="reads a list of a request",
    _tags="the groups' tags, which launched instances get",
    _xml="writes an answer of Auto Scaling",
    handle_request="answers what ours do not",
)
cloudwatch = Part(
    "services.cloudwatch",
    _calc_stats="the statistics of a metric's data, for alarms",
    _dims_key="the key of a metric's dimensions",
    _dispatch_alarm_actions="does what an alarm says",
    _error="writes an error of CloudWatch",
    _evaluate_alarm="decides an alarm's state: ours counts periods as AWS does",
    _evaluate_all_alarms="decides all alarms, once new data are there",
    _evict_old_metrics="forgets old data: not here, where others append to them at that moment",
    _metrics="the data of all metrics",
    _p="reads a parameter of a request",
    _put_dashboard="stores a dashboard: ours checks it before",
    _record_history="writes an alarm's history",
    _stat_value="one statistic's value",
    _store_datum="stores a datum that a function has printed",
    cloudformation_put_dashboard="stores a stack's dashboard: ours checks it before",
    record_metric="stores a datum of an AWS service",
)
cloudwatch_logs = Part(
    "services.cloudwatch_logs",
    _create_log_stream="makes the stream of an access log",
    _log_groups="the log groups, to see whether one is there",
    _put_log_events="writes a line of an access log",
)
dynamodb = Part(
    "services.dynamodb",
    _normalize_table_name="a table's name of its name or ARN",
    _pitr_settings="point-in-time recovery of tables",
    _sse_description_from_spec="describes a table's encryption",
    _tables="the tables, for the keys of conditions and the properties of a stack",
    _ttl_settings="the expiry of tables",
    _update_ttl="turns on a table's expiry",
    drop_stream_records="forgets a deleted table's stream",
    handle_request="answers what ours let pass",
)
ec2 = Part(
    "services.ec2",
    _DEFAULT_SG_ID="the default security group",
    _DEFAULT_SUBNET_ID="the default subnet",
    _DEFAULT_VPC_ID="the default VPC",
    _INSTANCE_ID_RE="how the id of an instance looks",
    _STUB_AMIS="the AMIs that ministack knows",
    _az_id_for_zone_name="the id of an availability zone",
    _ensure_defaults_initialized="makes the default VPC before the first request",
    _error="writes an error of EC2",
    _guess_resource_type="tells the type of a resource by its id, for tags",
    _images="the AMIs that were registered",
    _instances="the instances, whose records are ours",
    _launch_templates="the launch templates, whose records are ours",
    _network_interfaces="the network interfaces, which launches add to",
    _now_ts="the time as EC2 writes it",
    _random_ip="makes up an address",
    _resolve_iam_instance_profile="finds an instance profile",
    _security_groups="the security groups",
    _snapshots="the snapshots, whose records are ours",
    _subnets="the subnets",
    _tags="the tags of all resources",
    _volumes="the volumes, whose records are ours",
    _vpcs="the VPCs",
    _xml="writes an answer of EC2",
    handle_request="answers what ours do not",
)
ecr = Part(
    "services.ecr",
    _create_repository="makes a repository on a first push",
    _delete_repository="deletes a repository: ours does not while it has images",
    _repo_shape="describes a repository",
    _repositories="the repositories, to which ours add the registry's images",
    handle_request="answers what ours do not",
)
eks = Part("services.eks", _clusters="the clusters, to which tests add without waiting")
eventbridge = Part(
    "services.eventbridge",
    _dispatch_event="sends an event of an AWS service, past PutEvents, which rightly refuses those",
    _dispatch_to_lambda="invokes a function: ours does so asynchronously, with permission",
    _dispatch_to_sqs="sends to a queue: ours with permission",
    _dispatch_to_stepfunctions="starts an execution: ours as the target's role",
    _event_from_test_payload="reads an event",
    _events_log_list="the events so far",
    _invoke_target="serves a target: ours remembers which, for its dead letters",
    _pattern_event_view="an event as patterns see it",
    _rule_key="the key of a rule",
    _rules="the rules, to fire one",
    _targets="the targets of a rule, to fire it",
    _tick_scheduled_rules="fires scheduled rules: not where tests count calls",
    handle_request="answers PutEvents once each entry is permitted",
)
iam = Part(
    "services.iam",
    _IAM_HANDLERS="which handler answers an action, for SimulatePrincipalPolicy",
    _boundary_policy_error="what is wrong with a boundary",
    _error="writes an error of IAM",
    _lookup_instance_profile="finds an instance profile, for what its role may",
    _p="reads a parameter of a request",
    _roles="the roles, with boundaries and trust policies",
    _users="the users, for the simulation",
    _xml="writes an answer of IAM",
)
lambda_svc = Part(
    "services.lambda_svc",
    _ESM_BACKOFF_SECONDS="the wait after a failed batch: none, as its messages are invisible long enough",
    _emit_lambda_logs="writes a function's log: ours only with permission",
    _emit_lambda_metrics="counts an invocation: ours does, throttled ones alone are left to it",
    _execute_function="runs a function, for invocations that are retried",
    _execute_function_dispatch="runs a function: ours measures it",
    _execute_function_with_config_scope="runs a function, for HTTP APIs",
    _execution_record_for_config="what runs a version of a function",
    _functions="the functions, for the VPC that one is in",
    _get_func_record_for_ref="finds a function by its name or ARN",
    _iter_all_esms="the event source mappings, for their batching windows",
    _provided_worker_env="a function's environment: ours is as on AWS",
    _run_sqs_batch="hands a batch to a function: ours waits for its window",
    _vpc_config_with_id="a function's VPC settings with the VPC's id",
    invoke_async_with_retry="the asynchronous invocation: ours retries and has a failure destination",
)
s3 = Part(
    "services.s3",
    S3_NS="the XML namespace of S3",
    _buckets="the buckets, to see whether one is empty",
    _delete_bucket="deletes a bucket, unless it holds anything",
    _delete_bucket_encryption="ends a bucket's encryption",
    _delete_bucket_lifecycle="ends a bucket's lifecycle rules",
    _put_bucket_encryption="sets a bucket's encryption",
    _put_bucket_lifecycle="sets a bucket's lifecycle rules",
    _put_bucket_ownership_controls="sets who owns a bucket's objects",
)
scheduler = Part("services.scheduler", start_scheduler="starts ministack's clock of schedules: ours instead")
sqs = Part(
    "services.sqs",
    _Err="an error of SQS",
    _HANDLERS="which handler answers an action, for SendMessage",
    _act_send_message="takes a message: ours refuses a delay that AWS would",
    _collect_msgs="takes messages from a queue, for a whole batch",
    _dlq_sweep="moves messages to the dead-letter queue",
    _ensure_msg_fields="completes a message",
    _expire_retained="forgets messages that are too old",
    _get_q="finds a queue by its URL",
    _queue_by_arn="finds a queue by its ARN",
    _queues="the queues, for their metrics",
    _queues_lock="guards the queues",
    _receive_messages_for_esm="takes a batch: ours waits for its batching window",
    queue_delay="the delay of a queue: ours is scaled",
    queue_policy_allows="decides by a queue's policy",
)
ssm = Part(
    "services.ssm",
    _delete_parameters="deletes parameters, each with permission",
    _get_parameter="reads a parameter that is none of AWS's",
    _get_parameters="reads parameters that are none of AWS's",
    _parameters="the parameters, for the limits of their tiers",
    _put_parameter="stores a parameter within its limits",
    handle_request="answers what ours do not",
)
stepfunctions = Part(
    "services.stepfunctions",
    _AWS_SDK_ERROR_PREFIX="how errors of a service begin",
    _ExecutionError="what a state fails with",
    _add_event="writes an execution's history",
    _api_name_to_sfn_key="how Step Functions spells a member of an answer",
    _create_state_machine="makes a state machine: ours checks it before",
    _delete_state_machine="deletes a state machine: ours ends its executions",
    _emit_execution_status_event="raises an execution's event: ours does",
    _executions="the executions, whose records are ministack's",
    _jsonata_result_defined="tells whether an expression has yielded anything",
    _register_sfn_jsonata_functions="adds Step Functions' own functions to JSONata",
    _resolve_state_machine_arn="finds a state machine",
    _run_execution="runs an execution: ours does, as the machine's role",
    _start_execution="starts an execution: ours checks its name and input",
    _state_machines="the state machines",
    _stop_execution="stops an execution: ours ends its states",
    _update_state_machine="updates a state machine: ours checks it before",
)
sts = Part("services.sts", register_session="makes the credentials of a role, for the calls of a task")
