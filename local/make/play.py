"""Plays on the cloud that `make cloud` runs: launches a node, pushes an image, opens a shell, calls the jobs API."""

import argparse
import json
import os
import re
import shlex
import sys
import time
from typing import NoReturn

from botocore.exceptions import ClientError

from local import guide, images, workload
from local.child import entrance
from local.client import LocalCloud
from local.http_api import HttpApi
from local.nodes.node import ENVIRONMENT
from local.stack import TEMPLATE, Stack

CLUSTER = "demo"
CLUSTER_TAG = "aws:eks:cluster-name"
ONLINE_SECONDS = 30
IMAGE = re.compile(r"([a-z0-9]+(?:[._/-][a-z0-9]+)*):([A-Za-z0-9_][A-Za-z0-9._-]{0,127})")
NODE = re.compile(r"m?i-[0-9a-f]+")


class Refused(Exception):
    """Says why nothing was done, in one sentence."""


def main(arguments: list[str]) -> int:
    """Does what the command line says; returns 1, and why on stderr, where it could not."""
    options = _parser().parse_args(arguments)
    try:
        return options.work(_running(), options) or 0
    except (Refused, RuntimeError, TimeoutError, ClientError) as error:
        print(error, file=sys.stderr)
        return 1


def launch(cloud: LocalCloud, options: argparse.Namespace) -> None:
    """Launches a node and waits until SSM reaches it."""
    node = cloud.launch({CLUSTER_TAG: options.cluster}, online_after=options.online_after)
    cloud.until_online(node, seconds=ONLINE_SECONDS + options.online_after)
    print(node)


def push(cloud: LocalCloud, options: argparse.Namespace) -> None:
    """Pushes an image of random content, another one each time, to ECR, or to quay.io where its name begins so."""
    foreign = f"{cloud.foreign_host}/"
    match = IMAGE.fullmatch(options.image.removeprefix(foreign))
    if not match:
        raise Refused(f"The image {options.image} is not accepted: it takes a repository and a tag, as team/app:v1.")
    repository, tag = match.groups()
    host, slash, _ = repository.partition("/")
    if slash and "." in host:
        raise Refused(f"There is no registry {host} to push to: team/app:v1 is ECR's, {foreign}team/app:v1 another's.")
    content = images.image(f"{options.image} {time.time_ns()}", layer_bytes=options.mib << 20)
    if options.image.startswith(foreign):
        workload.push_foreign(cloud, repository, tag, content)
    else:
        cloud.push(repository, tag, content)
    print(f"{options.image} {content.digest}")


def nodes(cloud: LocalCloud, options: argparse.Namespace) -> None:
    """Lists the nodes, what SSM says of each, and the images on it."""
    known = cloud.state()["nodes"]
    for node, facts in known.items():
        print(f"{node}  {facts['state']}, {'online' if facts['online'] else 'offline'} in SSM")
        if facts["state"] == "running":
            for name in sorted(name for name in cloud.images(node) if "@" not in name and not _is_id(name)):
                print(f"  {name}")
    if not known:
        print("There is no node yet: make play DO=launch")


def shell(cloud: LocalCloud, options: argparse.Namespace) -> NoReturn:
    """Opens a shell on a node, or runs a command there, and ends as that does."""
    words = list(options.words)
    node = words.pop(0) if words and NODE.fullmatch(words[0]) else _newest(cloud)
    try:
        pid = cloud.control("GET", f"nodes/{node}/pid")["pid"]
    except RuntimeError as error:
        raise Refused(f"There is no node {node}: make play DO=nodes lists them.") from error
    if pid is None:
        raise Refused(f"The node {node} does not run.")
    command = words or ["bash", "--norc", "-i"]
    prompt = {"TERM": os.environ.get("TERM", "dumb"), "PS1": f"[{node}] # "}
    enter = [*entrance(cloud.pid), *entrance(pid), *command]
    os.execvpe(enter[0], enter, {**ENVIRONMENT, **prompt})  # the terminal is the shell's, as is Ctrl-C


def deploy(cloud: LocalCloud, options: argparse.Namespace) -> None:
    """Deploys the stack, new or as an update, with the functions that `make local` has built."""
    if not TEMPLATE.exists():
        raise Refused("There is nothing built to deploy: make local builds the functions.")
    stack = Stack(cloud)
    stack.deploy(**{"ClusterName": options.cluster} | _parameters(options.parameters))
    for name, value in sorted(stack.outputs().items()):
        print(f"{name:<24}{value}")


def jobs(cloud: LocalCloud, options: argparse.Namespace) -> int:
    """Calls the jobs API of the deployed stack, signed, and prints its answer; returns 1 where that is an error."""
    try:
        url = Stack(cloud).outputs()["JobsUrl"]
    except ClientError as error:
        raise Refused("There is no stack yet: make play DO=deploy") from error
    body = options.body.encode() if options.body else b""
    answer = HttpApi(cloud, url).send(options.method, options.path, body, {"content-type": "application/json"})
    print(f"HTTP {answer.status}", file=sys.stderr)
    print(json.dumps(answer.json(), indent=2) if answer.body else "")
    return int(answer.status >= 400)


def env(cloud: LocalCloud, options: argparse.Namespace) -> None:
    """Prints what has a shell's AWS tools talk to the cloud."""
    for name, value in sorted(cloud.env().items()):
        if name.startswith("AWS_") or name.upper() == "NO_PROXY":
            print(f"export {name}={shlex.quote(value)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make play DO=…", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="WHAT")

    def command(work, name: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=work.__doc__.partition("\n")[0], description=work.__doc__)
        added.set_defaults(work=work)
        return added

    launching = command(launch, "launch")
    launching.add_argument("--cluster", default=CLUSTER, help=f"the cluster's name ({CLUSTER})")
    launching.add_argument("--online-after", type=float, default=1, help="seconds until SSM reaches it (1)")
    pushing = command(push, "push")
    pushing.add_argument(
        "image", help="repository and tag, as team/app:v1, or of the other registry, as quay.io/a/b:v1"
    )
    pushing.add_argument("--mib", type=_size, default=8, help="how large it is (8)")
    command(nodes, "nodes")
    shelling = command(shell, "shell")
    shelling.add_argument("words", nargs=argparse.REMAINDER, help="the node (the newest), and a command (a shell)")
    deploying = command(deploy, "deploy")
    deploying.add_argument("--cluster", default=CLUSTER, help=f"the cluster's name ({CLUSTER})")
    deploying.add_argument("parameters", nargs="*", help="parameters, as CentralRegistries=210987654321")
    calling = command(jobs, "jobs")
    calling.add_argument("method", nargs="?", default="GET", help="GET, POST or DELETE (GET)")
    calling.add_argument("path", nargs="?", default="/jobs", help="such as /jobs, /nodes, /jobs/stats (/jobs)")
    calling.add_argument(
        "body", nargs="?", help=r"""JSON, as in make play DO="jobs POST /jobs '{\"images\": [\"team/app:v1\"]}'\""""
    )
    command(env, "env")
    return parser


def _parameters(given: list[str]) -> dict[str, str]:
    unusable = [text for text in given if not re.match(r"[A-Za-z0-9]+=", text)]
    if unusable:
        raise Refused(f"The parameter {unusable[0]} is not accepted: it takes a name and a value, as Used=true.")
    return dict(text.split("=", 1) for text in given)


def _size(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return number


def _running() -> LocalCloud:
    """Returns the cloud that `make cloud` runs."""
    state = guide.read()
    if not state:
        raise Refused("No local cloud runs here: make cloud starts one, in another terminal.")
    cloud = LocalCloud.running(state)
    try:
        cloud.state()
    except OSError as error:
        raise Refused("The local cloud that make cloud had started has ended: start it again.") from error
    return cloud


def _newest(cloud: LocalCloud) -> str:
    running = [node for node, facts in cloud.state()["nodes"].items() if facts["state"] == "running"]
    if not running:
        raise Refused("No node runs: make play DO=launch")
    return running[-1]


def _is_id(name: str) -> bool:
    return name.startswith("sha256:")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["--help"]))
