"""Delivers a command to its nodes: rate control, delivery timeouts, and the agent that runs the document."""

import time
from datetime import UTC, datetime

from local import background
from local.nodes.fleet import Fleet, ManagedNode
from local.settings import scaled
from local.ssm.commands import TERMINAL, Command, Invocation, Plugin
from local.ssm.scripted import Ending


def deliver(command: Command, fleet: Fleet) -> None:
    """Sends a command to its nodes, as many at a time as rate control allows, and settles its status."""
    if command.invocations:
        command.move("InProgress")
    sent = []
    for invocation in command.invocations:
        if invocation.status in TERMINAL:  # denied by IAM
            continue
        with command.changed:
            command.changed.wait_for(lambda: command.stopped() or _in_flight(sent) < command.max_concurrency)
        if command.stopped():
            invocation.move("Cancelled", "Cancelled" if command.cancelled else "Terminated")
        elif node := fleet.node(invocation.instance_id):
            sent.append(invocation)
            background.start(_deliver_to_node, invocation, node)
        else:
            invocation.move("Failed", "Undeliverable")
    with command.changed:
        command.changed.wait_for(lambda: not _in_flight(sent))
    command.settle()


def _in_flight(sent: list[Invocation]) -> int:
    return sum(invocation.status not in TERMINAL for invocation in sent)


def _deliver_to_node(invocation: Invocation, node: ManagedNode) -> None:
    """Delivers to one node and reports what becomes of it; a node that dies is noticed by its silence."""
    deadline = time.monotonic() + scaled(invocation.command.delivery_seconds)
    if not node.wait_online(deadline, lambda: invocation.status != "Pending"):
        if node.state == "running":
            invocation.move("TimedOut", "DeliveryTimedOut")
        else:
            invocation.move("Failed", "Undeliverable")
        return
    with node.agent_slots:
        if invocation.status != "Pending":
            return
        invocation.move("InProgress")
        if node.knobs.endings:
            ending = Ending(**node.knobs.endings.pop(0))
            time.sleep(ending.seconds)
            ending.apply(invocation)
            return
        try:
            outcome = _run_steps(invocation, node)
        except Exception as error:
            invocation.plugin(None).stderr = f"The local cloud itself failed: {error}"
            invocation.move("Failed")
            raise
    if outcome is None or not node.wait_online(deadline, lambda: False):
        time.sleep(max(0.0, deadline - time.monotonic()))
        outcome = "TimedOut", "ExecutionTimedOut"
    invocation.move(*outcome)


def _run_steps(invocation: Invocation, node: ManagedNode) -> tuple[str, str] | None:
    """Runs the document's steps until one fails; returns the outcome, None when the node died."""
    for step, plugin in zip(invocation.command.steps, invocation.plugins, strict=True):
        plugin.started = datetime.now(UTC)
        plugin.status = plugin.details = "InProgress"
        if not _run_step(invocation.command, step, plugin, node):
            return None
        plugin.ended = datetime.now(UTC)
        if plugin.status != "Success":
            return plugin.status, plugin.details
    return "Success", "Success"


def _run_step(command: Command, step: dict, plugin: Plugin, node: ManagedNode) -> bool:
    """Runs one step; returns False when the node died."""
    if answer := _not_for_it(step, node.knobs.platform):
        plugin.stdout, plugin.exit_code = answer, 0
        plugin.status = plugin.details = "Success"
        return True
    if step["action"] != "aws:runShellScript":
        plugin.stderr = f"The local cloud does not run {step['action']}."
        plugin.status = plugin.details = "Failed"
        return True
    script, environment = _rendered(command, step["inputs"]["runCommand"], node.knobs.agent)
    completed = node.run(script, environment, command.execution_timeout)
    if completed is None:
        return False
    plugin.stdout, plugin.stderr = completed.stdout, completed.stderr
    if completed.exit_code is None:
        plugin.status, plugin.details = "TimedOut", "ExecutionTimedOut"
    else:
        plugin.exit_code = completed.exit_code
        plugin.status = plugin.details = "Success" if completed.exit_code == 0 else "Failed"
    return True


def _not_for_it(step: dict, platform: str) -> str:
    """Returns what the agent says, with success, of a step that is not for its platform; nothing of one that is.

    It looks for the step's plugin first, and Windows has none that runs shell scripts (amazon-ssm-agent).
    """
    if platform == "Windows" and step["action"] == "aws:runShellScript":
        return f"Step execution skipped due to unsupported plugin: {step['action']}. Step name: {step['name']}"
    name, wanted = step.get("precondition", {}).get("StringEquals", ("platformType", platform))
    if name == "platformType" and wanted != platform:
        why = f"unsatisfied preconditions: '\"StringEquals\": [{name}, {wanted}]'"
        return f"Step execution skipped due to {why}. Step name: {step['name']}"
    return ""


def _rendered(command: Command, lines: list[str], agent: str) -> tuple[str, dict[str, str]]:
    """Returns the script and its environment: an agent of today hands ENV_VAR parameters over as variables."""
    specs = command.version.parameters
    in_environment = {name for name, spec in specs.items() if agent == "new" and "interpolationType" in spec}
    environment = {f"SSM_{name}": command.parameters[name][0] for name in in_environment}
    return command.substituted("\n".join(lines) + "\n", specs.keys() - in_environment), environment
