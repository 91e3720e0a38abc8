"""Replaces EBS's volumes and snapshots by such that have contents, and adds fast snapshot restore."""

import random
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from local import background
from local.api import ApiError
from local.ec2 import instances, query, tagging
from local.iam.permissions import Caller
from local.ministack import ec2
from local.settings import ACCOUNT, REGION, scaled

SNAPSHOT_SECONDS = 30
"""Says how long a snapshot is pending; minutes to hours on AWS."""
FAST_RESTORE_SECONDS = 30
"""Says how long a snapshot's fast restore is enabling, and then optimizing: an hour per TiB on AWS."""
PAGE_SIZES = range(5, 1001)
"""Says what MaxResults may be (EC2, DescribeSnapshots and DescribeVolumes)."""
FAST_RESTORE_PAGE_SIZES = range(0, 201)
FACTS: dict[str, query.Fact] = {
    "volume-id": lambda volume: volume["VolumeId"],
    "status": lambda volume: volume["State"],
    "size": lambda volume: str(volume["Size"]),
    "volume-type": lambda volume: volume["VolumeType"],
    "snapshot-id": lambda volume: volume["SnapshotId"],
    "encrypted": lambda volume: str(volume["Encrypted"]).lower(),
    "availability-zone": lambda volume: volume["AvailabilityZone"],
    "attachment.instance-id": lambda volume: [row["InstanceId"] for row in volume["Attachments"]],
    "attachment.device": lambda volume: [row["Device"] for row in volume["Attachments"]],
}
SNAPSHOT_FACTS: dict[str, query.Fact] = {
    "snapshot-id": lambda snapshot: snapshot["SnapshotId"],
    "status": lambda snapshot: snapshot["State"],
    "volume-id": lambda snapshot: snapshot["VolumeId"],
    "volume-size": lambda snapshot: str(snapshot["VolumeSize"]),
    "description": lambda snapshot: snapshot["Description"],
    "encrypted": lambda snapshot: str(snapshot["Encrypted"]).lower(),
    "owner-id": lambda snapshot: snapshot["OwnerId"],
    "progress": lambda snapshot: snapshot["Progress"],
    "start-time": lambda snapshot: snapshot["StartTime"],
    "storage-tier": lambda snapshot: snapshot["StorageTier"],
}
FAST_RESTORE_FACTS: dict[str, query.Fact] = {
    "snapshot-id": lambda row: row["SnapshotId"],
    "availability-zone": lambda row: row["AvailabilityZone"],
    "owner-id": lambda row: row["OwnerId"],
    "state": lambda row: row["State"],
}
"""Says what the filters of DescribeVolumes, DescribeSnapshots and DescribeFastSnapshotRestores compare."""
ZONES = tuple(f"{REGION}{letter}" for letter in "abc")


def arn(volume_id: str) -> str:
    """Returns a volume's ARN."""
    return f"arn:aws:ec2:{REGION}:{ACCOUNT}:volume/{volume_id}"


def snapshot_arn(snapshot_id: str) -> str:
    """Returns a snapshot's ARN, which names no account."""
    return f"arn:aws:ec2:{REGION}::snapshot/{snapshot_id}"


class Volumes:
    """Every volume and snapshot, and the folders with what is on them."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._failing = 0
        self._fast_restores: dict[tuple[str, str], dict] = {}
        self._lock = threading.Lock()

    def install(self) -> None:
        """Takes the place of ministack's actions."""
        actions = {
            "DescribeVolumes": self.describe,
            "CreateSnapshot": self.create_snapshot,
            "DescribeSnapshots": self.describe_snapshots,
            "DeleteSnapshot": self.delete_snapshot,
            "EnableFastSnapshotRestores": self.enable_fast_restores,
            "DisableFastSnapshotRestores": self.disable_fast_restores,
            "DescribeFastSnapshotRestores": self.describe_fast_restores,
        }
        query.register(actions)
        instances.on_change(lambda instance_id, state: state == "terminated" and self.release(instance_id))

    def folder(self, volume_id: str) -> Path:
        """Returns the folder that holds what is on a volume."""
        folder = self._folder / "volumes" / volume_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def snapshots(self) -> dict[str, dict]:
        """Returns of every snapshot what EC2 does not tell: whether its volume was in use, as after a power cut."""
        return {row["SnapshotId"]: {"crash_consistent": row["CrashConsistent"]} for row in query.rows(ec2._snapshots)}

    def fail_next_snapshots(self, count: int) -> None:
        """Has the next snapshots end in error."""
        self._failing = count

    def check(self, ebs: dict) -> None:
        """Refuses a volume that cannot be made."""
        if "KmsKeyId" in ebs and not ebs.get("Encrypted"):
            message = "The parameter KmsKeyId requires the parameter Encrypted to be set."
            raise ApiError("InvalidParameterDependency", message)
        if not (snapshot_id := ebs.get("SnapshotId")):
            return
        snapshot = _snapshot(snapshot_id)
        if snapshot["State"] != "completed":
            raise ApiError("IncorrectState", f"Snapshot is in invalid state - {snapshot['State']}")
        if ebs.get("VolumeSize", snapshot["VolumeSize"]) < snapshot["VolumeSize"]:
            message = f"Volume of size {ebs['VolumeSize']}GB is smaller than snapshot '{snapshot_id}'"
            raise ApiError("InvalidBlockDeviceMapping", f"{message}, expect size >= {snapshot['VolumeSize']}GB")

    def create(self, instance_id: str, device: str, ebs: dict, zone: str, tags: Mapping[str, str]) -> dict:
        """Makes a volume that is attached to an instance, with a snapshot's contents where it comes from one."""
        id_ = _new_id("vol")
        now = ec2._now_ts()
        snapshot = ec2._snapshots.get(ebs.get("SnapshotId", ""), {})
        attachment = {
            "VolumeId": id_,
            "InstanceId": instance_id,
            "Device": device,
            "State": "attached",
            "AttachTime": now,
            "DeleteOnTermination": ebs.get("DeleteOnTermination", True),
        }
        kind = ebs.get("VolumeType", "gp2")
        ec2._volumes[id_] = {
            "VolumeId": id_,
            "Size": ebs.get("VolumeSize") or snapshot["VolumeSize"],
            "AvailabilityZone": zone,
            "State": "in-use",
            "VolumeType": kind,
            "SnapshotId": ebs.get("SnapshotId", ""),
            "Iops": ebs.get("Iops", 3000 if kind == "gp3" else 100),
            "Throughput": ebs.get("Throughput", 125) if kind == "gp3" else None,
            "Encrypted": ebs.get("Encrypted", False) or snapshot.get("Encrypted", False),
            "KmsKeyId": ebs.get("KmsKeyId"),
            "CreateTime": now,
            "Attachments": [attachment],
            "MultiAttachEnabled": False,
        }
        tagging.put(id_, tags)
        if snapshot:
            _copy(self._folder / "snapshots" / snapshot["SnapshotId"], self.folder(id_))
        return ec2._volumes[id_]

    def release(self, instance_id: str) -> None:
        """Deletes the volumes that go with an instance, and detaches the others."""
        for volume in query.rows(ec2._volumes):
            for attachment in list(volume["Attachments"]):
                if attachment["InstanceId"] == instance_id:
                    volume["Attachments"].remove(attachment)
                    volume["State"] = "available"
                    if attachment["DeleteOnTermination"]:
                        self._delete(volume["VolumeId"])

    def describe(self, request: dict, caller: Caller) -> dict:
        """DescribeVolumes."""
        rows = [_volume(id_) for id_ in request["VolumeIds"]] if "VolumeIds" in request else query.rows(ec2._volumes)
        found = query.select(rows, request.get("Filters", []), FACTS, "VolumeId")
        answer = query.one_page("Volumes", found, request, PAGE_SIZES, "VolumeIds")
        return {**answer, "Volumes": [tagging.shown(row, "VolumeId") for row in answer["Volumes"]]}

    def create_snapshot(self, request: dict, caller: Caller) -> dict:
        """CreateSnapshot: it holds what is on the volume now, and is complete after a while."""
        volume = _volume(request["VolumeId"])
        tags = tagging.specified(request, "snapshot")
        keys = {"ec2:ParentVolume": arn(volume["VolumeId"]), "ec2:VolumeSize": str(volume["Size"])}
        encrypted = {"ec2:Encrypted": str(volume["Encrypted"]).lower()}
        caller.require("ec2:CreateSnapshot", arn(volume["VolumeId"]), tagging.of(volume["VolumeId"]), encrypted)
        requested = tagging.requested(tags)
        caller.require("ec2:CreateSnapshot", snapshot_arn("*"), {}, {**requested, **keys})
        if tags:
            creating = {"ec2:CreateAction": "CreateSnapshot"}
            caller.require("ec2:CreateTags", snapshot_arn("*"), {}, {**requested, **creating})
        id_ = _new_id("snap")
        ec2._snapshots[id_] = {
            "SnapshotId": id_,
            "VolumeId": volume["VolumeId"],
            "VolumeSize": volume["Size"],
            "Description": request.get("Description", ""),
            "State": "pending",
            "StateMessage": None,
            "StartTime": ec2._now_ts(),
            "Progress": "0%",
            "OwnerId": ACCOUNT,
            "Encrypted": volume["Encrypted"],
            "KmsKeyId": volume.get("KmsKeyId"),
            "StorageTier": "standard",
            "CrashConsistent": _in_use(volume),
            "Made": time.monotonic(),
        }
        tagging.put(id_, tags)
        _copy(self.folder(volume["VolumeId"]), self._folder / "snapshots" / id_)
        background.later(scaled(SNAPSHOT_SECONDS), self._complete, id_)
        return tagging.shown(ec2._snapshots[id_], "SnapshotId")

    def describe_snapshots(self, request: dict, caller: Caller) -> dict:
        """DescribeSnapshots: of the account, which is all there are."""
        owned = {"self", ACCOUNT} & set(request.get("OwnerIds", ["self"]))
        all_ = [row for row in query.rows(ec2._snapshots) if owned and query.visible(row)]
        rows = [_snapshot(id_) for id_ in request["SnapshotIds"]] if "SnapshotIds" in request else all_
        found = query.select(rows, request.get("Filters", []), SNAPSHOT_FACTS, "SnapshotId")
        answer = query.one_page("Snapshots", found, request, PAGE_SIZES, "SnapshotIds")
        return {**answer, "Snapshots": [tagging.shown(row, "SnapshotId") for row in answer["Snapshots"]]}

    def delete_snapshot(self, request: dict, caller: Caller) -> dict:
        """DeleteSnapshot, unless an AMI is made of it."""
        id_ = request["SnapshotId"]
        caller.require("ec2:DeleteSnapshot", snapshot_arn(id_), tagging.of(id_))
        _snapshot(id_)
        for image in ec2._images.values():
            for mapping in image.get("BlockDeviceMappings") or []:
                if mapping.get("Ebs", {}).get("SnapshotId") == id_:
                    message = f"The snapshot {id_} is currently in use by {image['ImageId']}"
                    raise ApiError("InvalidSnapshot.InUse", message)
        ec2._snapshots.pop(id_)
        ec2._tags.pop(id_, None)
        shutil.rmtree(self._folder / "snapshots" / id_, ignore_errors=True)
        with self._lock:
            self._fast_restores = {key: row for key, row in self._fast_restores.items() if key[0] != id_}
        return {}

    def enable_fast_restores(self, request: dict, caller: Caller) -> dict:
        """EnableFastSnapshotRestores: enabling, then optimizing, then enabled."""
        successful, unsuccessful = [], []
        for id_ in request["SourceSnapshotIds"]:
            caller.require("ec2:EnableFastSnapshotRestores", snapshot_arn(id_), tagging.of(id_))
            errors = []
            for zone in request["AvailabilityZones"]:
                if error := _fast_restore_refusal(id_, zone):
                    errors.append({"AvailabilityZone": zone, "Error": error})
                    continue
                row = {
                    "SnapshotId": id_,
                    "AvailabilityZone": zone,
                    "State": "enabling",
                    "StateTransitionReason": "Client.UserInitiated",
                    "OwnerId": ACCOUNT,
                    "EnablingTime": ec2._now_ts(),
                }
                with self._lock:
                    row = self._fast_restores.setdefault((id_, zone), row)
                background.later(scaled(FAST_RESTORE_SECONDS), self._advance, row)
                successful.append(dict(row))
            if errors:
                unsuccessful.append({"SnapshotId": id_, "FastSnapshotRestoreStateErrors": errors})
        return {"Successful": successful, "Unsuccessful": unsuccessful}

    def disable_fast_restores(self, request: dict, caller: Caller) -> dict:
        """DisableFastSnapshotRestores."""
        successful, unsuccessful = [], []
        for id_ in request["SourceSnapshotIds"]:
            caller.require("ec2:DisableFastSnapshotRestores", snapshot_arn(id_), tagging.of(id_))
            errors = []
            for zone in request["AvailabilityZones"]:
                with self._lock:
                    row = self._fast_restores.pop((id_, zone), None)
                if row:
                    successful.append({**row, "State": "disabling", "DisablingTime": ec2._now_ts()})
                else:
                    error = {"Code": "InvalidSnapshot.InvalidState", "Message": "Fast snapshot restore is not enabled."}
                    errors.append({"AvailabilityZone": zone, "Error": error})
            if errors:
                unsuccessful.append({"SnapshotId": id_, "FastSnapshotRestoreStateErrors": errors})
        return {"Successful": successful, "Unsuccessful": unsuccessful}

    def describe_fast_restores(self, request: dict, caller: Caller) -> dict:
        """DescribeFastSnapshotRestores; one that was disabled is there no more."""
        with self._lock:
            rows = [dict(row) for row in self._fast_restores.values()]
        found = query.select(rows, request.get("Filters", []), FAST_RESTORE_FACTS)
        return query.one_page("FastSnapshotRestores", found, request, FAST_RESTORE_PAGE_SIZES, "SnapshotIds")

    def _complete(self, snapshot_id: str) -> None:
        if not (snapshot := ec2._snapshots.get(snapshot_id)):
            return
        if self._failing:
            self._failing -= 1
            snapshot |= {"State": "error", "StateMessage": "Client.InternalError: injected by the local cloud"}
        else:
            snapshot |= {"State": "completed", "Progress": "100%"}

    def _advance(self, row: dict) -> None:
        if row["State"] == "enabling":
            row |= {"State": "optimizing", "OptimizingTime": ec2._now_ts()}
            background.later(scaled(FAST_RESTORE_SECONDS), self._advance, row)
        elif row["State"] == "optimizing":
            row |= {"State": "enabled", "EnabledTime": ec2._now_ts()}

    def _delete(self, volume_id: str) -> None:
        ec2._volumes.pop(volume_id, None)
        ec2._tags.pop(volume_id, None)
        shutil.rmtree(self._folder / "volumes" / volume_id, ignore_errors=True)


def _volume(volume_id: str) -> dict:
    if volume_id not in ec2._volumes:
        raise ApiError("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")
    return ec2._volumes[volume_id]


def _snapshot(snapshot_id: str) -> dict:
    if snapshot_id not in ec2._snapshots or not query.visible(ec2._snapshots[snapshot_id]):
        raise ApiError("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")
    return ec2._snapshots[snapshot_id]


def _in_use(volume: dict) -> bool:
    """Tells whether a volume may be written to: its snapshot is as after a power cut."""
    owners = [ec2._instances.get(attachment["InstanceId"]) for attachment in volume["Attachments"]]
    return any(owner and owner["State"]["Name"] not in ("stopped", "terminated") for owner in owners)


def _fast_restore_refusal(snapshot_id: str, zone: str) -> dict | None:
    if snapshot_id not in ec2._snapshots:
        return {"Code": "InvalidSnapshot.NotFound", "Message": f"The snapshot '{snapshot_id}' does not exist."}
    if zone not in ZONES:
        return {"Code": "InvalidParameterValue", "Message": f"Invalid availability zone: [{zone}]"}
    if ec2._snapshots[snapshot_id]["State"] != "completed":
        return {"Code": "IncorrectState", "Message": f"The snapshot '{snapshot_id}' is not completed."}
    return None


def _copy(source: Path, target: Path) -> None:
    """Copies what is on a volume, as it is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.exists():
        subprocess.run(["cp", "-a", "--no-target-directory", source, target], check=True)


def _new_id(prefix: str) -> str:
    return f"{prefix}-{random.getrandbits(68):017x}"
