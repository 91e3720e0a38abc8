"""Adds the resource type AWS::SSM::Document to CloudFormation."""

import json

from local.api import ApiError, check
from local.ministack import provisioners
from local.ssm import documents


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
        documents.create(request)
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
    provisioners._reconcile_tag_map(documents.find(name).tags, old, new)
    return name, {"Name": name}


def _new_version(name: str, properties: dict) -> None:
    """Makes the content the new default version, as AWS's resource handler does under UpdateMethod NewVersion."""
    request = _resource_request(name, properties)
    request.pop("Tags", None)
    request.pop("DocumentType", None)
    try:
        check("ssm", "UpdateDocument", request)
        documents.update({**request, "DocumentVersion": "$LATEST"})
    except ApiError as error:
        if error.code != "DuplicateDocumentContent":
            raise ValueError(f"{error.message} ({error.code})") from error
        return
    document = documents.find(name)
    document.default = document.latest.number


def _delete_resource(name: str, properties: dict) -> None:
    documents.DOCUMENTS.pop(name, None)


def _resource_request(name: str, properties: dict) -> dict:
    passed = ("DocumentType", "DocumentFormat", "TargetType", "VersionName", "Tags")
    return {"Name": name, "Content": _content(properties)} | {
        key: properties[key] for key in passed if key in properties
    }


def _content(properties: dict) -> str:
    content = properties.get("Content", "")
    # CloudFormation writes it anew, with indentation.
    return content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False)
