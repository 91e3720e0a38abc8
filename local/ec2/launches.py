"""Replaces RunInstances: launches with volumes and a network interface, as somebody, once per token."""

import base64
import binascii
import json
import random
from collections.abc import Iterator

from local.api import ApiError
from local.ec2 import amis, instances, launch_templates, query, tagging, volumes
from local.ec2.amis import Ami
from local.ec2.volumes import Volumes
from local.iam.permissions import Caller
from local.ministack import ec2
from local.ministack import iam as ministack_iam
from local.settings import ACCOUNT, REGION

TAGGED = ("instance", "volume", "network-interface")
MAX_USER_DATA = 16 << 10
"""Bytes of user data (EC2, instance user data)."""
KEY_ACTIONS = ("CreateGrant", "Decrypt", "GenerateDataKeyWithoutPlaintext")
"""Says what whoever launches has to be allowed on the key of an encrypted volume (EBS, how encryption works)."""
INTERFACE_FACTS: dict[str, query.Fact] = {
    "network-interface-id": lambda interface: interface["NetworkInterfaceId"],
    "attachment.instance-id": lambda interface: (interface["Attachment"] or {}).get("InstanceId", ""),
    "subnet-id": lambda interface: interface["SubnetId"],
    "status": lambda interface: interface["Status"],
}
"""Says what the filters of DescribeNetworkInterfaces compare."""
INTERFACE_PAGE_SIZES = range(5, 1001)
"""Says what MaxResults may be (EC2, DescribeNetworkInterfaces)."""
INSTANCE_DEFAULTS = {"InstanceType": "m1.small", "MinCount": 1, "MaxCount": 1}


class Launches:
    """Says what was launched by token."""

    def __init__(self, volumes_: Volumes):
        self._volumes = volumes_
        self._by_token: dict[str, tuple[str, list[str]]] = {}

    def install(self) -> None:
        """Takes the place of ministack's action."""
        query.register({"RunInstances": self.run, "DescribeNetworkInterfaces": describe_interfaces})
        instances.on_change(_release)

    def run(self, request: dict, caller: Caller) -> dict:
        """RunInstances; the same token and the same request mean the instances that are there."""
        token = request.get("ClientToken")
        said = json.dumps(request, sort_keys=True)
        if token in self._by_token:
            before, ids = self._by_token[token]
            if before != said:
                message = "Arguments on this idempotent request are inconsistent with arguments used in previous"
                raise ApiError("IdempotentParameterMismatch", f"{message} request(s).")
            return _answer([ec2._instances[id_] for id_ in ids])
        launch = _Launch({**INSTANCE_DEFAULTS, **launch_templates.merged(request)})
        for mapping in launch.mappings:
            self._volumes.check(mapping["Ebs"])
        launch.authorize(caller)
        made = [self._make(launch) for _ in range(request["MaxCount"])]
        ids = [instance["InstanceId"] for instance in made]
        if token:
            self._by_token[token] = said, ids
        if launch.may_use_keys(caller):
            instances.move(ids, instances.LAUNCH)
        else:
            for instance in made:
                reason = {"Code": "Client.InternalError", "Message": "Client.InternalError: Client error on launch"}
                instance["StateReason"] = reason
            instances.move(ids, ("pending", "terminated"))
        return _answer(made)

    def _make(self, launch: "_Launch") -> dict:
        """Makes an instance with all that belongs to it."""
        instance = instances.record(
            launch.ami.id,
            launch.request["InstanceType"],
            launch.subnet["SubnetId"],
            launch.groups,
            launch.profile and {"Arn": launch.profile["Arn"], "Id": launch.profile["InstanceProfileId"]},
            KeyName=launch.request.get("KeyName"),
            ClientToken=launch.request.get("ClientToken", ""),
            UserData=launch.user_data,
        )
        instance["MetadataOptions"] |= launch.request.get("MetadataOptions", {})
        id_ = instance["InstanceId"]
        tagging.put(id_, launch.tags["instance"])
        zone = launch.subnet["AvailabilityZone"]
        for mapping in launch.mappings:
            device = mapping["DeviceName"]
            volume = self._volumes.create(id_, device, mapping["Ebs"], zone, launch.tags["volume"])
            [attachment] = volume["Attachments"]
            ebs = {"VolumeId": volume["VolumeId"], "Status": "attached", "AttachTime": attachment["AttachTime"]}
            ebs["DeleteOnTermination"] = attachment["DeleteOnTermination"]
            instance["BlockDeviceMappings"].append({"DeviceName": device, "Ebs": ebs})
        if launch.public:
            instance["PublicIpAddress"] = ec2._random_ip("54.")
        instance["NetworkInterfaces"].append(_interface(instance, launch))
        return instance


def describe_interfaces(request: dict, caller: Caller) -> dict:
    """DescribeNetworkInterfaces."""
    wanted = request.get("NetworkInterfaceIds")
    rows = [row for row in query.rows(ec2._network_interfaces) if not wanted or row["NetworkInterfaceId"] in wanted]
    found = query.select(rows, request.get("Filters", []), INTERFACE_FACTS, "NetworkInterfaceId")
    answer = query.one_page("NetworkInterfaces", found, request, INTERFACE_PAGE_SIZES, "NetworkInterfaceIds")
    shown = [{**row, "TagSet": tagging.shown(row, "NetworkInterfaceId")["Tags"]} for row in answer["NetworkInterfaces"]]
    return {**answer, "NetworkInterfaces": shown}


class _Launch:
    """One request, its parts checked."""

    def __init__(self, request: dict):
        self.request = request
        if not 1 <= request["MinCount"] <= request["MaxCount"]:
            raise ApiError("InvalidParameterCombination", "MinCount must not exceed MaxCount.")
        if "ImageId" not in request:
            raise ApiError("MissingParameter", "The request must contain the parameter ImageId")
        self.ami: Ami = amis.find(request["ImageId"])
        self._check_architecture()
        self.network = _only_interface(request)
        self.subnet = _subnet(self.network.get("SubnetId", ec2._DEFAULT_SUBNET_ID))
        self.groups = [_group(id_, self.subnet) for id_ in self.network.get("Groups", [])]
        self.public = self.network.get("AssociatePublicIpAddress", self.subnet["MapPublicIpOnLaunch"])
        self.profile = _profile(request.get("IamInstanceProfile", {}))
        self.user_data = _user_data(request.get("UserData", ""))
        self.mappings = self._mappings()
        for row in request.get("TagSpecifications", []):
            if row.get("ResourceType") not in TAGGED:
                message = f"'{row.get('ResourceType')}' is not a valid taggable resource type for this operation."
                raise ApiError("InvalidParameterValue", message)
        self.tags = {kind: tagging.specified(request, kind) for kind in TAGGED}

    def authorize(self, caller: Caller) -> None:
        """Raises AccessDeniedException unless the caller may launch all this (EC2, actions and condition keys)."""
        for resource, tags, keys in self._resources():
            caller.require("ec2:RunInstances", resource, tags, keys)
        for kind in TAGGED:
            if self.tags[kind]:
                creating = {"ec2:CreateAction": "RunInstances", **tagging.requested(self.tags[kind])}
                caller.require("ec2:CreateTags", _arn(kind, "*"), {}, creating)
        for role in (self.profile or {}).get("Roles", []):
            keys = {"iam:PassedToService": "ec2.amazonaws.com", "iam:AssociatedResourceArn": instances.arn("*")}
            caller.require("iam:PassRole", ministack_iam._roles[role]["Arn"], {}, keys)

    def may_use_keys(self, caller: Caller) -> bool:
        """Tells whether the caller may use the keys of its volumes; where not, the instance ends as it begins."""
        for mapping in self.mappings:
            if key := mapping["Ebs"].get("KmsKeyId"):
                arn = key if key.startswith("arn:") else f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{key}"
                keys = {"kms:ViaService": f"ec2.{REGION}.amazonaws.com", "kms:GrantIsForAWSResource": "true"}
                try:
                    for action in KEY_ACTIONS:
                        caller.require(f"kms:{action}", arn, {}, keys)
                except ApiError:
                    return False
        return True

    def _resources(self) -> Iterator[tuple[str, dict, dict]]:
        """Yields what a launch needs permission for: ARN, tags, and the keys of the request's context."""
        zone = {"ec2:AvailabilityZone": self.subnet["AvailabilityZone"]}
        vpc = {"ec2:Vpc": _arn("vpc", self.subnet["VpcId"])}
        metadata = self.request.get("MetadataOptions", {})
        instance = {
            "ec2:InstanceType": self.request["InstanceType"],
            "ec2:RootDeviceType": "ebs",
            "ec2:Tenancy": "default",
            "ec2:MetadataHttpTokens": metadata.get("HttpTokens"),
            "ec2:MetadataHttpEndpoint": metadata.get("HttpEndpoint"),
            "ec2:MetadataHttpPutResponseHopLimit": metadata.get("HttpPutResponseHopLimit"),
            "ec2:InstanceProfile": self.profile and self.profile["Arn"],
        }
        given = {key: str(value) for key, value in instance.items() if value is not None}
        yield _arn("instance", "*"), {}, {**zone, **given, **tagging.requested(self.tags["instance"])}
        owner = {"ec2:ImageID": self.ami.id, "ec2:Owner": "amazon", "ec2:Public": "true", "ec2:RootDeviceType": "ebs"}
        yield f"arn:aws:ec2:{REGION}::image/{self.ami.id}", tagging.of(self.ami.id), owner
        subnet = self.subnet["SubnetId"]
        yield _arn("subnet", subnet), tagging.of(subnet), {**zone, **vpc, "ec2:SubnetID": subnet}
        for group in self.groups or [ec2._DEFAULT_SG_ID]:
            yield _arn("security-group", group), tagging.of(group), vpc
        interface = {"ec2:Subnet": _arn("subnet", subnet), "ec2:AssociatePublicIpAddress": str(self.public).lower()}
        interface |= tagging.requested(self.tags["network-interface"])
        yield _arn("network-interface", "*"), {}, {**zone, **vpc, **interface}
        for mapping in self.mappings:
            ebs = mapping["Ebs"]
            volume = {
                "ec2:VolumeSize": str(ebs.get("VolumeSize", "")),
                "ec2:VolumeType": ebs.get("VolumeType", "gp2"),
                "ec2:Encrypted": str(ebs.get("Encrypted", False)).lower(),
            }
            yield _arn("volume", "*"), {}, {**zone, **volume, **tagging.requested(self.tags["volume"])}
            if snapshot := ebs.get("SnapshotId"):
                keys = {"ec2:Owner": ACCOUNT, "ec2:VolumeSize": str(ec2._snapshots[snapshot]["VolumeSize"])}
                yield volumes.snapshot_arn(snapshot), tagging.of(snapshot), keys
        if "KeyName" in self.request:
            yield _arn("key-pair", self.request["KeyName"]), {}, {}
        if template := launch_templates.named(self.request):
            yield _arn("launch-template", template), tagging.of(template), {}

    def _check_architecture(self) -> None:
        type_ = self.request["InstanceType"]
        if (processor := amis.architecture_of(type_)) != self.ami.architecture:
            message = (
                f"The architecture '{processor}' of the specified instance type does not match the architecture"
                f" '{self.ami.architecture}' of the specified AMI. Specify an instance type and an AMI that have"
                " matching architectures, and try again."
            )
            raise ApiError("InvalidParameterValue", message)

    def _mappings(self) -> list[dict]:
        """Returns the AMI's volumes, as the request has them, and those that it adds."""
        sizes = self.ami.devices
        mappings = {device: {"VolumeSize": size, "VolumeType": "gp3"} for device, size in sizes.items()}
        for mapping in self.request.get("BlockDeviceMappings", []):
            device, ebs = mapping["DeviceName"], mapping.get("Ebs", {})
            if device not in sizes and not ebs.keys() & {"VolumeSize", "SnapshotId"}:
                message = "The request must contain the parameter size or snapshotId"
                raise ApiError("MissingParameter", message)
            default = {} if "SnapshotId" in ebs or device not in sizes else mappings[device]
            mappings[device] = {**default, **ebs}
        return [{"DeviceName": device, "Ebs": ebs} for device, ebs in mappings.items()]


def _answer(made: list[dict]) -> dict:
    return {
        "ReservationId": f"r-{made[0]['InstanceId'][2:]}",
        "OwnerId": ACCOUNT,
        "Groups": [],
        "Instances": [tagging.shown(instance, "InstanceId") for instance in made],
    }


def _interface(instance: dict, launch: _Launch) -> dict:
    """Makes the network interface of an instance, which goes with it."""
    id_ = f"eni-{random.getrandbits(68):017x}"
    shared = {
        "NetworkInterfaceId": id_,
        "SubnetId": launch.subnet["SubnetId"],
        "VpcId": launch.subnet["VpcId"],
        "Description": "",
        "OwnerId": ACCOUNT,
        "Status": "in-use",
        "MacAddress": f"02:{random.randbytes(5).hex(':')}",
        "PrivateIpAddress": instance["PrivateIpAddress"],
        "PrivateDnsName": instance["PrivateDnsName"],
        "SourceDestCheck": True,
        "Groups": instance["SecurityGroups"],
        "InterfaceType": "interface",
    }
    attachment = {
        "AttachmentId": f"eni-attach-{id_[4:]}",
        "DeviceIndex": 0,
        "Status": "attached",
        "AttachTime": instance["LaunchTime"],
        "DeleteOnTermination": launch.network.get("DeleteOnTermination", True),
    }
    tagging.put(id_, launch.tags["network-interface"])
    ec2._network_interfaces[id_] = {
        **shared,
        "AvailabilityZone": launch.subnet["AvailabilityZone"],
        "Attachment": {**attachment, "InstanceId": instance["InstanceId"], "InstanceOwnerId": ACCOUNT},
    }
    return {**shared, "Attachment": attachment}


def _release(instance_id: str, state: str) -> None:
    """Deletes the network interfaces of an instance that has ended."""
    for interface in query.rows(ec2._network_interfaces) if state == "terminated" else []:
        if (interface.get("Attachment") or {}).get("InstanceId") == instance_id:
            ec2._network_interfaces.pop(interface["NetworkInterfaceId"], None)
            ec2._tags.pop(interface["NetworkInterfaceId"], None)


def _only_interface(request: dict) -> dict:
    """Returns what a request says of the network, wherever it does."""
    given = request.get("NetworkInterfaces", [])
    outside = {"SubnetId": request.get("SubnetId"), "Groups": request.get("SecurityGroupIds")}
    outside = {field: value for field, value in outside.items() if value}
    if not given:
        return outside
    if outside:
        message = "Network interfaces and an instance-level subnet ID or security groups may not be specified on the"
        raise ApiError("InvalidParameterCombination", f"{message} same request")
    if len(given) > 1 or given[0].get("DeviceIndex", 0) != 0:
        raise ApiError("InvalidParameterValue", "The local cloud gives an instance one network interface.")
    return given[0]


def _subnet(id_: str) -> dict:
    if id_ not in ec2._subnets:
        raise ApiError("InvalidSubnetID.NotFound", f"The subnet ID '{id_}' does not exist")
    return ec2._subnets[id_]


def _group(id_: str, subnet: dict) -> str:
    if id_ not in ec2._security_groups:
        raise ApiError("InvalidGroup.NotFound", f"The security group '{id_}' does not exist")
    if ec2._security_groups[id_]["VpcId"] != subnet["VpcId"]:
        message = f"Security group {id_} and subnet {subnet['SubnetId']} belong to different networks."
        raise ApiError("InvalidParameter", message)
    return id_


def _profile(given: dict) -> dict | None:
    if not given:
        return None
    name, arn = given.get("Name", ""), given.get("Arn", "")
    if profile := ministack_iam._lookup_instance_profile(name=name, arn=arn):
        return profile
    field, noun = ("name", "name") if name else ("arn", "ARN")
    message = f"Value ({name or arn}) for parameter iamInstanceProfile.{field} is invalid."
    raise ApiError("InvalidParameterValue", f"{message} Invalid IAM Instance Profile {noun}")


def _user_data(text: str) -> str:
    """Returns what an instance is told, or refuses what is not encoded or too long."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ApiError("InvalidParameterValue", "Invalid BASE64 encoding of user data") from error
    if len(decoded) > MAX_USER_DATA:
        raise ApiError("InvalidParameterValue", f"User data is limited to {MAX_USER_DATA} bytes")
    return decoded.decode()


def _arn(kind: str, id_: str) -> str:
    return f"arn:aws:ec2:{REGION}:{ACCOUNT}:{kind}/{id_}"
