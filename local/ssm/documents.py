"""Adds SSM documents: their operations, versions and tags."""

import hashlib
import json
import time
from dataclasses import dataclass, field

from local.api import ApiError, page
from local.settings import ACCOUNT, REGION
from local.ssm.content import parse


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
