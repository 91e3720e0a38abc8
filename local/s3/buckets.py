"""Gives a stack's bucket encryption, lifecycle and ownership, and does not delete one that holds anything."""

from xml.etree.ElementTree import Element, SubElement, tostring

from local.cloudformation.resources import complete, succeed
from local.ministack import s3

LIFECYCLE_RULE = frozenset(
    {"Id", "Status", "Prefix", "ExpirationInDays", "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"}
)
"""Says what of a lifecycle rule is emulated."""


def install() -> None:
    """Completes the CloudFormation resource."""
    complete("AWS::S3::Bucket", _configure, _delete)


def _configure(name: str, properties: dict) -> None:
    s3._delete_bucket_encryption(name)
    if "BucketEncryption" in properties:
        succeed(s3._put_bucket_encryption(name, _encryption(properties["BucketEncryption"])))
    s3._delete_bucket_lifecycle(name)
    if "LifecycleConfiguration" in properties:
        succeed(s3._put_bucket_lifecycle(name, _lifecycle(properties["LifecycleConfiguration"])))
    if "OwnershipControls" in properties:
        succeed(s3._put_bucket_ownership_controls(name, _ownership(properties["OwnershipControls"])))


def _delete(name: str) -> None:
    if name in s3._buckets:
        succeed(s3._delete_bucket(name))


def _encryption(configuration: dict) -> bytes:
    root = Element("ServerSideEncryptionConfiguration", xmlns=s3.S3_NS)
    for rule in configuration["ServerSideEncryptionConfiguration"]:
        element = SubElement(root, "Rule")
        default = rule["ServerSideEncryptionByDefault"]
        _texts(SubElement(element, "ApplyServerSideEncryptionByDefault"), default)
        SubElement(element, "BucketKeyEnabled").text = str(rule.get("BucketKeyEnabled", False)).lower()
    return tostring(root)


def _lifecycle(configuration: dict) -> bytes:
    root = Element("LifecycleConfiguration", xmlns=s3.S3_NS)
    for rule in configuration["Rules"]:
        if unknown := rule.keys() - LIFECYCLE_RULE:
            raise ValueError(f"The local cloud knows no {', '.join(sorted(unknown))} of a lifecycle rule.")
        element = SubElement(root, "Rule")
        if "Id" in rule:
            SubElement(element, "ID").text = rule["Id"]
        SubElement(element, "Status").text = rule["Status"]
        SubElement(SubElement(element, "Filter"), "Prefix").text = rule.get("Prefix", "")
        if "ExpirationInDays" in rule:
            SubElement(SubElement(element, "Expiration"), "Days").text = str(rule["ExpirationInDays"])
        for action in ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"):
            if action in rule:
                _texts(SubElement(element, action), rule[action])
    return tostring(root)


def _ownership(controls: dict) -> bytes:
    root = Element("OwnershipControls", xmlns=s3.S3_NS)
    for rule in controls["Rules"]:
        _texts(SubElement(root, "Rule"), rule)
    return tostring(root)


def _texts(element: Element, values: dict) -> None:
    for name, value in values.items():
        SubElement(element, name).text = str(value)
