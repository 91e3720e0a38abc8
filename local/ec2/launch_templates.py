"""Replaces the calls of launch templates: by id or name and version, listed in pages."""

import random

from local.api import ApiError
from local.ec2 import query, tagging
from local.iam.permissions import Caller
from local.ministack import ec2
from local.settings import ACCOUNT

PAGE_SIZES = range(1, 201)
"""Says what MaxResults may be (EC2, DescribeLaunchTemplates and DescribeLaunchTemplateVersions)."""
FACTS: dict[str, query.Fact] = {"launch-template-name": lambda template: template["LaunchTemplateName"]}


def install() -> None:
    """Takes the place of ministack's actions."""
    actions = {
        "CreateLaunchTemplate": create,
        "CreateLaunchTemplateVersion": create_version,
        "DescribeLaunchTemplates": describe,
        "DescribeLaunchTemplateVersions": describe_versions,
    }
    query.register(actions)


def named(request: dict) -> str | None:
    """Returns the id of the template that a launch names."""
    return _found(request["LaunchTemplate"])["LaunchTemplateId"] if "LaunchTemplate" in request else None


def merged(request: dict) -> dict:
    """Returns what is launched: the template's version, over which the request stands."""
    if not (name := request.get("LaunchTemplate")):
        return request
    template = _found(name)
    [version] = _versions(template, [name.get("Version", "$Default")])
    # CloudFormation's templates may say "100" where the API says 100.
    data = query.typed("CreateLaunchTemplate", "LaunchTemplateData", version["LaunchTemplateData"])
    mappings = {mapping["DeviceName"]: mapping for mapping in data.get("BlockDeviceMappings", [])}
    mappings |= {mapping["DeviceName"]: mapping for mapping in request.get("BlockDeviceMappings", [])}
    return {**data, **request, "BlockDeviceMappings": list(mappings.values())}


def create(request: dict, caller: Caller) -> dict:
    """CreateLaunchTemplate."""
    name = request["LaunchTemplateName"]
    if any(template["LaunchTemplateName"] == name for template in ec2._launch_templates.values()):
        code = "InvalidLaunchTemplateName.AlreadyExistsException"
        raise ApiError(code, f"Launch template name already in use: {name}")
    template = {
        "LaunchTemplateId": f"lt-{random.getrandbits(68):017x}",
        "LaunchTemplateName": name,
        "CreateTime": ec2._now_ts(),
        "CreatedBy": f"arn:aws:iam::{ACCOUNT}:root",
        "DefaultVersionNumber": 1,
        "LatestVersionNumber": 0,
        "Versions": [],
    }
    ec2._launch_templates[template["LaunchTemplateId"]] = template
    tagging.put(template["LaunchTemplateId"], tagging.specified(request, "launch-template"))
    _add(template, request, request["LaunchTemplateData"])
    return {"LaunchTemplate": tagging.shown(template, "LaunchTemplateId")}


def create_version(request: dict, caller: Caller) -> dict:
    """CreateLaunchTemplateVersion."""
    template = _found(request)
    source = {}
    if "SourceVersion" in request:
        [version] = _versions(template, [request["SourceVersion"]])
        source = version["LaunchTemplateData"]
    return {"LaunchTemplateVersion": _add(template, request, {**source, **request["LaunchTemplateData"]})}


def describe(request: dict, caller: Caller) -> dict:
    """DescribeLaunchTemplates."""
    named_ = [_found({"LaunchTemplateId": id_}) for id_ in request.get("LaunchTemplateIds", [])]
    named_ += [_found({"LaunchTemplateName": name}) for name in request.get("LaunchTemplateNames", [])]
    rows = named_ or list(ec2._launch_templates.values())
    found = query.select(rows, request.get("Filters", []), FACTS, "LaunchTemplateId")
    answer = query.one_page("LaunchTemplates", found, request, PAGE_SIZES, "LaunchTemplateIds")
    return {**answer, "LaunchTemplates": [tagging.shown(row, "LaunchTemplateId") for row in answer["LaunchTemplates"]]}


def describe_versions(request: dict, caller: Caller) -> dict:
    """DescribeLaunchTemplateVersions: of one template, or the $Latest and $Default ones of all."""
    wanted = request.get("Versions", [])
    if request.keys() & {"LaunchTemplateId", "LaunchTemplateName"}:
        rows = _versions(_found(request), wanted)
    elif not wanted or set(wanted) - {"$Latest", "$Default"}:
        message = "When no launch template is named, Versions are $Latest, $Default or both"
        raise ApiError("MissingParameter", message)
    else:
        rows = [row for template in ec2._launch_templates.values() for row in _versions(template, wanted)]
    return query.one_page("LaunchTemplateVersions", rows, request, PAGE_SIZES, "-")


def _found(name: dict) -> dict:
    if id_ := name.get("LaunchTemplateId"):
        if id_ in ec2._launch_templates:
            return ec2._launch_templates[id_]
        message = f"The specified launch template, with template ID {id_}, does not exist."
        raise ApiError("InvalidLaunchTemplateId.NotFound", message)
    for template in ec2._launch_templates.values():
        if template["LaunchTemplateName"] == name["LaunchTemplateName"]:
            return template
    message = f"The specified launch template, with template name {name['LaunchTemplateName']}, does not exist."
    raise ApiError("InvalidLaunchTemplateName.NotFoundException", message)


def _versions(template: dict, wanted: list[str]) -> list[dict]:
    """Returns versions of a template, newest first; all where none is named."""
    numbers = {"$Latest": template["LatestVersionNumber"], "$Default": template["DefaultVersionNumber"]}
    rows = {version["VersionNumber"]: version for version in reversed(template["Versions"])}
    if not wanted:
        return list(rows.values())
    found = [rows.get(numbers.get(version) or int(version)) for version in wanted]
    if None in found:
        message = f"Could not find launch template version {wanted[found.index(None)]}"
        raise ApiError("InvalidLaunchTemplateId.VersionNotFound", message)
    return found


def _add(template: dict, request: dict, data: dict) -> dict:
    """Adds a version to a template."""
    number = template["LatestVersionNumber"] + 1
    version = {
        "LaunchTemplateId": template["LaunchTemplateId"],
        "LaunchTemplateName": template["LaunchTemplateName"],
        "VersionNumber": number,
        "VersionDescription": request.get("VersionDescription"),
        "DefaultVersion": number == template["DefaultVersionNumber"],
        "CreateTime": ec2._now_ts(),
        "CreatedBy": f"arn:aws:iam::{ACCOUNT}:root",
        "LaunchTemplateData": data,
    }
    template["Versions"].append(version)
    template["LatestVersionNumber"] = number
    return version
