"""Lists what an account holds."""

from local.client import LocalCloud


def inventory(cloud: LocalCloud) -> dict[str, list]:
    """Returns what an account holds of the kinds of thing that the template makes."""
    client = cloud.client
    return {
        "functions": [f["FunctionName"] for f in client("lambda").list_functions()["Functions"]],
        "mappings": [m["UUID"] for m in client("lambda").list_event_source_mappings()["EventSourceMappings"]],
        "log groups": [g["logGroupName"] for g in client("logs").describe_log_groups()["logGroups"]],
        "queues": client("sqs").list_queues().get("QueueUrls", []),
        "rules": [r["Name"] for r in client("events").list_rules()["Rules"]],
        "roles": [r["RoleName"] for r in client("iam").list_roles()["Roles"]],
        "policies": [p["PolicyName"] for p in client("iam").list_policies(Scope="Local")["Policies"]],
        "profiles": [p["InstanceProfileName"] for p in client("iam").list_instance_profiles()["InstanceProfiles"]],
        "machines": [m["name"] for m in client("stepfunctions").list_state_machines()["stateMachines"]],
        "repositories": [r["repositoryName"] for r in client("ecr").describe_repositories()["repositories"]],
        "documents": [
            d["Name"]
            for d in client("ssm").list_documents(Filters=[{"Key": "Owner", "Values": ["Self"]}])["DocumentIdentifiers"]
        ],
    }
