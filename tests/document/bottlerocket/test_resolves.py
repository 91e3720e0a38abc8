"""Tags are resolved from Bottlerocket's control container, and nothing of that stays."""

import json
import signal

from local import images
from local.ecr.registry import Registry
from local.nodes.bottlerocket import BottlerocketNode

from ..command import HOST
from ..state import eventually
from ..tags import begin, resolve, substituted
from .places import everywhere, remains

TAG = f"{HOST}/team/app:v1"


def test_tags_are_resolved_by_the_host_container(node: BottlerocketNode, pushed) -> None:
    app = images.multi_platform("app")
    pushed("team/app", "v1", app)
    pushed("team/chart", "v1", images.chart())
    before = remains(node)

    result = resolve(node, TAG, f"{HOST}/team/chart:v1")
    alone = resolve(node, TAG)
    old_agent = node.run(substituted(TAG), {}, 60)

    assert (result.exit_code, result.answers()) == (1, [app.digest, "not-an-image"]), result.stderr
    assert (alone.exit_code, alone.answers()) == (0, [app.digest])
    assert json.loads(old_agent.stdout) == {"tag": TAG, "digest": app.digest}
    assert remains(node) - before == {}
    assert node.images() == {}


def test_hostile_tags_reach_no_shell(quick_node: BottlerocketNode) -> None:
    for value in [
        "",
        " ",
        f"{TAG}'; touch /run/harmed; '",
        f"$(touch /run/harmed) {TAG}",
        f"{TAG}\nexit",
        "{{ tags }}",
    ]:
        result = resolve(quick_node, env={"SSM_tags": value})
        assert (result.exit_code, result.stdout) == (2, ""), value

    assert everywhere(quick_node, "ls /run/harmed 2>/dev/null || true") == ["", "", ""]


def test_a_command_that_is_interrupted_has_failed_and_leaves_nothing_at_work(
    node: BottlerocketNode, pushed, registry: Registry
) -> None:
    pushed("team/app", "v1", images.image("app"))
    resolve(node, TAG)  # the program is there now
    before = node.processes().keys()
    registry.pause(stall=True)
    command = begin(node, TAG)
    assert eventually(lambda: any(set(name) <= set("0123456789abcdef") for name in node.processes().values()))

    command.signal(signal.SIGTERM)
    completed = command.wait(15)
    registry.resume()

    assert (completed.exit_code, completed.stdout) == (1, "")
    assert eventually(lambda: node.processes().keys() - before, set(), 10), node.processes()
