"""Tells a person what a local cloud has started and how to go on, and where `make play` finds it."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from local.settings import TIME_SCALE

PLACE = Path(os.environ.get("LOCAL_CLOUD_FILE", Path(__file__).parent.parent / ".local/cloud.json"))
"""Keeps what is known of the cloud that `make cloud` runs, while it does."""

TEXT = """
A local cloud runs: AWS emulated, a registry, and room for nodes with a real containerd.
Ctrl-C ends it, and nothing of it is left.

  endpoint     {endpoint}
  account      {account}, {region}
  credentials  access key {access_key_id}, secret {secret_access_key}
  registry     {registry_host}
               docker and others find it at {registry_url}, user AWS, password {registry_password},
               certificate authority {registry_ca}
  time         AWS's own waiting passes {faster:g} times as fast (LOCAL_TIME_SCALE=1 make cloud: as on AWS)
  log          {folder}/server.log

Go on in another terminal:

  make play DO=deploy                 deploys the stack, for a cluster named demo; make local builds it before
  make play DO=launch                 launches a node of that cluster
  make play DO='push team/app:v1'     pushes an image, which the node then has
  make play DO='push {foreign_host}/a/b:v1'  pushes one to a registry outside AWS, which is up from then on
  make play DO=nodes                  lists the nodes and their images
  make play DO=shell                  opens a shell on the newest node: ctr -n k8s.io images ls
  make play DO='jobs GET /nodes'      calls the jobs API
  make play                           says what else there is

Any tool of AWS works too, once it is told where:

  eval "$(make -s play DO=env)"
  aws ssm list-commands
  make produce EVENTS=1000 PER_SECOND=5 DUPLICATES=5%
  make verify
"""


@contextlib.contextmanager
def open_to(state: dict, pid: int) -> Iterator[None]:
    """Prints the guide, and has `make play` find the cloud, and the process whose namespaces are its, meanwhile."""
    known = {**state, "pid": pid}
    PLACE.parent.mkdir(exist_ok=True)
    PLACE.unlink(missing_ok=True)
    PLACE.touch(0o600)
    PLACE.write_text(json.dumps(known))
    print(TEXT.format(**state, faster=1 / TIME_SCALE), flush=True)
    try:
        yield
    finally:
        if read() == known:  # and not another cloud's, which was started later
            PLACE.unlink()


def read() -> dict | None:
    """Returns what is known of the cloud that `make cloud` runs; None where it runs none."""
    try:
        return json.loads(PLACE.read_text())
    except (FileNotFoundError, ValueError):
        return None
