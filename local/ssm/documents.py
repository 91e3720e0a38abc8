"""Adds SSM documents: their operations, versions and tags."""

import hashlib
import json
import re
import time
from dataclasses import dataclass, field

import yaml

from local.api import ApiError, check, page
from local.ministack import provisioners
from local.settings import ACCOUNT, REGION

MAX_BYTES = 64 * 1024
"""The largest content CreateDocument takes, and SendCommand with the parameters of the run (SSM service model)."""

ACTIONS = frozenset(
    {
        "aws:applications",
        "aws:cloudWatch",
        "aws:configureDocker",
        "aws:configurePackage",
        "aws:domainJoin",
        "aws:downloadContent",
        "aws:psModule",
        "aws:refreshAssociation",
        "aws:runDockerAction",
        "aws:runDocument",
        "aws:runPowerShellScript",
        "aws:runShellScript",
        "aws:softwareInventory",
        "aws:updateAgent",
        "aws:updateSsmAgent",
    }
)
"""The plugins of a Command document (Systems Manager user guide, plugin reference)."""

PARAMETER_TYPES = {
    "String": str,
    "StringList": list,
    "Boolean": bool,
    "Integer": int,
    "MapList": list,
    "StringMap": dict,
}
PARAMETER_FIELDS = frozenset(
    {
        "type",
        "description",
        "default",
        "allowedValues",
        "allowedPattern",
        "displayType",
        "interpolationType",
        "minItems",
        "maxItems",
        "minChars",
        "maxChars",
    }
)
REFERENCE = re.compile(r"{{\s*(\w+)\s*}}")


@dataclass
class Version:
    """One version of a document: its content never changes."""

    number: int
    text: str
    content: dict
    name: str | None
    created: float = field(default_factory=time.time)

    @property
    def hash(self) -> str:
        """Returns the SHA-256 of the content, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def parameters(self) -> dict[str, dict]:
        """Returns the declared parameters by name."""
        return self.content.get("parameters") or {}


@dataclass
class Document:
    """A Command document with all its versions."""

    name: str
    format: str
    target_type: str | None
    tags: dict[str, str]
    versions: list[Version] = field(default_factory=list)
    default: int = 1

    @property
    def arn(self) -> str:
        """Returns the document's ARN."""
        return arn(self.name)

    @property
    def latest(self) -> Version:
        """Returns the newest version."""
        return self.versions[-1]

    def version(self, wanted: str | None) -> Version:
        """Returns the version of that number, $DEFAULT (also when none is named) or $LATEST."""
        number = {None: self.default, "$DEFAULT": self.default, "$LATEST": self.latest.number}.get(wanted)
        number = number or int(wanted)
        for version in self.versions:
            if version.number == number:
                return version
        raise ApiError("InvalidDocumentVersion", f"The document version {wanted} is not valid or does not exist.")

    def describe(self, version: Version) -> dict:
        """Returns AWS's DocumentDescription of one version."""
        return _present(
            Name=self.name,
            Owner=ACCOUNT,
            CreatedDate=version.created,
            Status="Active",
            DocumentVersion=str(version.number),
            VersionName=version.name,
            Description=version.content.get("description"),
            Parameters=[_describe_parameter(name, spec) for name, spec in version.parameters.items()],
            PlatformTypes=["Linux", "MacOS"],
            DocumentType="Command",
            SchemaVersion=version.content["schemaVersion"],
            LatestVersion=str(self.latest.number),
            DefaultVersion=str(self.default),
            DocumentFormat=self.format,
            TargetType=self.target_type,
            Hash=version.hash,
            HashType="Sha256",
            Tags=_tag_list(self.tags),
        )


DOCUMENTS: dict[str, Document] = {}


def arn(name: str) -> str:
    """Returns the ARN of the account's document of that name."""
    return f"arn:aws:ssm:{REGION}:{ACCOUNT}:document/{name}"


def find(name_or_arn: str) -> Document:
    """Returns the document of that name or ARN."""
    name = name_or_arn.removeprefix(arn(""))
    if name not in DOCUMENTS:
        raise ApiError("InvalidDocument", f"Document with name {name_or_arn} does not exist.")
    return DOCUMENTS[name]


def create(request: dict) -> dict:
    """CreateDocument."""
    name = request["Name"]
    if name in DOCUMENTS:
        raise ApiError("DocumentAlreadyExists", f"Document with name {name} already exists.")
    if request.get("DocumentType", "Command") != "Command":
        raise ApiError("ValidationException", "The local cloud has Command documents only.")
    document = Document(
        name, request.get("DocumentFormat", "JSON"), request.get("TargetType"), _tag_map(request.get("Tags"))
    )
    content = parse(request["Content"], document.format)
    document.versions.append(Version(1, request["Content"], content, request.get("VersionName")))
    DOCUMENTS[name] = document
    return {"DocumentDescription": document.describe(document.latest)}


def update(request: dict) -> dict:
    """UpdateDocument: a new latest version; the default version stays."""
    document = find(request["Name"])
    document.version(request.get("DocumentVersion"))
    format_ = request.get("DocumentFormat", "JSON")
    content = parse(request["Content"], format_)
    if any(version.text == request["Content"] for version in document.versions):
        raise ApiError("DuplicateDocumentContent", "The content of the association document matches another document.")
    name = request.get("VersionName")
    if name and any(version.name == name for version in document.versions):
        raise ApiError("DuplicateDocumentVersionName", "The version name has already been used in this document.")
    document.format = format_
    document.target_type = request.get("TargetType", document.target_type)
    document.versions.append(Version(document.latest.number + 1, request["Content"], content, name))
    return {"DocumentDescription": document.describe(document.latest)}


def update_default_version(request: dict) -> dict:
    """UpdateDocumentDefaultVersion."""
    document = find(request["Name"])
    document.default = document.version(request["DocumentVersion"]).number
    return {"Description": {"Name": document.name, "DefaultVersion": str(document.default)}}


def describe(request: dict) -> dict:
    """DescribeDocument."""
    document = find(request["Name"])
    return {"Document": document.describe(document.version(request.get("DocumentVersion")))}


def get(request: dict) -> dict:
    """GetDocument."""
    document = find(request["Name"])
    version = document.version(request.get("DocumentVersion"))
    return _present(
        Name=document.name,
        CreatedDate=version.created,
        VersionName=version.name,
        DocumentVersion=str(version.number),
        Status="Active",
        Content=version.text,
        DocumentType="Command",
        DocumentFormat=document.format,
    )


def delete(request: dict) -> dict:
    """DeleteDocument, with all versions."""
    del DOCUMENTS[find(request["Name"]).name]
    return {}


def list_all(request: dict) -> dict:
    """ListDocuments, paged; filters are not emulated."""
    rows = []
    for document in sorted(DOCUMENTS.values(), key=lambda document: document.name):
        row = document.describe(document.version(None))
        rows.append({key: row[key] for key in row if key not in ("Description", "Parameters", "Status", "Hash")})
    rows, rest = page(rows, request.get("NextToken"), request.get("MaxResults", 50))
    return {"DocumentIdentifiers": rows, **rest}


def add_tags(request: dict) -> dict:
    """AddTagsToResource of a document."""
    _tagged(request).tags.update(_tag_map(request["Tags"]))
    return {}


def remove_tags(request: dict) -> dict:
    """RemoveTagsFromResource of a document."""
    for key in request["TagKeys"]:
        _tagged(request).tags.pop(key, None)
    return {}


def list_tags(request: dict) -> dict:
    """ListTagsForResource of a document."""
    return {"TagList": _tag_list(_tagged(request).tags)}


OPERATIONS = {
    "CreateDocument": create,
    "UpdateDocument": update,
    "UpdateDocumentDefaultVersion": update_default_version,
    "DescribeDocument": describe,
    "GetDocument": get,
    "DeleteDocument": delete,
    "ListDocuments": list_all,
}
TAG_OPERATIONS = {
    "AddTagsToResource": add_tags,
    "RemoveTagsFromResource": remove_tags,
    "ListTagsForResource": list_tags,
}


def parse(text: str, format_: str) -> dict:
    """Returns the content of a Command document, or raises the error AWS would."""
    if len(text.encode()) > MAX_BYTES:
        raise ApiError("MaxDocumentSizeExceeded", "The size limit of a document is 64 KB.")
    try:
        content = yaml.safe_load(text) if format_ == "YAML" else json.loads(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise _invalid(f"{format_} not well-formed: {error}") from error
    if not isinstance(content, dict):
        raise _invalid("The document is not an object.")
    if content.get("schemaVersion") != "2.2":
        version = content.get("schemaVersion")
        raise ApiError("InvalidDocumentSchemaVersion", f"The schema version {version} is not supported; use 2.2.")
    unknown = content.keys() - {"schemaVersion", "description", "parameters", "mainSteps"}
    if unknown:
        raise _invalid(f"Unknown top-level elements: {', '.join(sorted(unknown))}.")
    parameters = content.get("parameters") or {}
    for name, spec in parameters.items():
        _check_parameter(name, spec)
    _check_steps(content.get("mainSteps"), parameters)
    return content


def _check_parameter(name: str, spec: dict) -> None:
    unknown = spec.keys() - PARAMETER_FIELDS
    if unknown:
        raise _invalid(f"Parameter {name} has unknown properties: {', '.join(sorted(unknown))}.")
    if spec.get("type") not in PARAMETER_TYPES:
        raise _invalid(f"Parameter {name} has the unknown type {spec.get('type')}.")
    if spec.get("interpolationType", "ENV_VAR") != "ENV_VAR" or (
        "interpolationType" in spec and spec["type"] != "String"
    ):
        raise _invalid(f"Parameter {name}: interpolationType ENV_VAR is for parameters of type String only.")
    if "allowedPattern" in spec:
        try:
            re.compile(spec["allowedPattern"])
        except re.error as error:
            raise _invalid(f"Parameter {name}: allowedPattern is no regular expression: {error}.") from error
    if "default" not in spec:
        return
    if not isinstance(spec["default"], PARAMETER_TYPES[spec["type"]]):
        raise _invalid(f"Parameter {name}: the default is not of type {spec['type']}.")
    if spec["type"] in ("String", "StringList"):
        values = spec["default"] if spec["type"] == "StringList" else [spec["default"]]
        for fault in value_faults(name, spec, values):
            raise _invalid(f"The default value is not allowed: {fault}")


def _check_steps(steps: list | None, parameters: dict) -> None:
    if not isinstance(steps, list) or not steps:
        raise _invalid("mainSteps is required and must have at least one step.")
    names = [step.get("name") for step in steps]
    if None in names or len(set(names)) != len(names):
        raise _invalid("Every step needs a name of its own.")
    for step in steps:
        if step.get("action") not in ACTIONS:
            raise _invalid(f"Step {step['name']} has the unknown action {step.get('action')}.")
        script = step.get("inputs", {}).get("runCommand")
        if step["action"] == "aws:runShellScript" and not (script and isinstance(script, list)):
            raise _invalid(f"Step {step['name']}: runCommand must be a list of lines.")
    undeclared = set(REFERENCE.findall(json.dumps(steps))) - parameters.keys()
    if undeclared:
        raise _invalid(f"Parameters are used and not declared: {', '.join(sorted(undeclared))}.")


def value_faults(name: str, spec: dict, values: list[str]) -> list[str]:
    """Returns what is wrong with the values of a String or StringList parameter."""
    faults = []
    if not spec.get("minItems", 0) <= len(values) <= spec.get("maxItems", len(values)):
        faults.append(f"Parameter {name} has a number of items that is not allowed.")
    for value in values:
        if "allowedValues" in spec and value not in spec["allowedValues"]:
            faults.append(f"Parameter {name} has a value that is not one of the allowed values: {value}")
        if "allowedPattern" in spec and not re.fullmatch(spec["allowedPattern"], value):
            faults.append(f"Parameter {name} does not match its allowed pattern: {spec['allowedPattern']}")
        if not spec.get("minChars", 0) <= len(value) <= spec.get("maxChars", len(value)):
            faults.append(f"Parameter {name} has a value whose length is not allowed.")
    return faults


def install() -> None:
    """Adds the resource type AWS::SSM::Document to CloudFormation."""
    provisioners._RESOURCE_HANDLERS["AWS::SSM::Document"] = {
        "create": _create_resource,
        "update": _update_resource,
        "update_with_logical_id": True,
        "delete": _delete_resource,
    }
    provisioners._STACK_TAG_PROPERTY["AWS::SSM::Document"] = ("Tags", "list")


def _create_resource(logical_id: str, properties: dict, stack: str) -> tuple[str, dict]:
    name = properties.get("Name") or provisioners._physical_name(stack, logical_id)
    request = _resource_request(name, properties)
    try:
        check("ssm", "CreateDocument", request)
        create(request)
    except ApiError as error:
        if error.code != "DocumentAlreadyExists" or properties.get("UpdateMethod") != "NewVersion":
            raise ValueError(f"{error.message} ({error.code})") from error
        _new_version(name, properties)
    return name, {"Name": name}


def _update_resource(name: str, old: dict, new: dict, stack: str, logical_id: str) -> tuple[str, dict]:
    renamed = new.get("Name", name) != name
    if renamed or (new.get("UpdateMethod", "Replace") == "Replace" and _content(old) != _content(new)):
        if not renamed and new.get("Name"):
            raise ValueError(
                "CloudFormation cannot update a stack when a custom-named resource requires replacing."
                f" Rename {name} and update the stack again."
            )
        created = provisioners._seeded_create(_create_resource, logical_id, new, stack)
        provisioners._delete_predecessor(_delete_resource, name, old)
        return created
    _new_version(name, new)
    provisioners._reconcile_tag_map(find(name).tags, old, new)
    return name, {"Name": name}


def _new_version(name: str, properties: dict) -> None:
    """Makes the content the new default version, as AWS's resource handler does under UpdateMethod NewVersion."""
    request = _resource_request(name, properties)
    request.pop("Tags", None)
    request.pop("DocumentType", None)
    try:
        check("ssm", "UpdateDocument", request)
        update({**request, "DocumentVersion": "$LATEST"})
    except ApiError as error:
        if error.code != "DuplicateDocumentContent":
            raise ValueError(f"{error.message} ({error.code})") from error
        return
    document = find(name)
    document.default = document.latest.number


def _delete_resource(name: str, properties: dict) -> None:
    DOCUMENTS.pop(name, None)


def _resource_request(name: str, properties: dict) -> dict:
    passed = ("DocumentType", "DocumentFormat", "TargetType", "VersionName", "Tags")
    return {"Name": name, "Content": _content(properties)} | {
        key: properties[key] for key in passed if key in properties
    }


def _content(properties: dict) -> str:
    content = properties.get("Content", "")
    # CloudFormation writes it anew, with indentation.
    return content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False)


def _describe_parameter(name: str, spec: dict) -> dict:
    default = spec.get("default")
    if default is not None and not isinstance(default, str):
        default = json.dumps(default)
    type_ = "StringList" if spec["type"] == "StringList" else "String"
    return _present(Name=name, Type=type_, Description=spec.get("description"), DefaultValue=default)


def _tagged(request: dict) -> Document:
    if request["ResourceId"] not in DOCUMENTS:
        raise ApiError("InvalidResourceId", f"The resource ID {request['ResourceId']} is not valid.")
    return DOCUMENTS[request["ResourceId"]]


def _tag_map(tags: list[dict] | None) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags or []}


def _tag_list(tags: dict[str, str]) -> list[dict]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _present(**fields) -> dict:
    return {key: value for key, value in fields.items() if value is not None}


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidDocumentContent", message)
