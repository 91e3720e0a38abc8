"""Takes a port, then loads ministack, which reads its environment when it is imported."""

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path

from local.settings import ACCOUNT, REGION


def main() -> None:
    """Serves until killed; `ready.json` in the folder says when and where."""
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s [%(name)s] %(message)s")
    listener = socket.create_server(("127.0.0.1", port))
    endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
    _set_environment(endpoint, folder / "tmp")
    from local import cloud, ministack

    ministack.load()
    asyncio.run(cloud.serve(folder, listener, endpoint))


def _set_environment(endpoint: str, temporary: Path) -> None:
    """Sets what ministack reads; the functions inherit it."""
    temporary.mkdir()
    del os.environ["PYTHONPATH"]
    os.environ |= {
        "AUTH": "true",
        "AWS_ENDPOINT_URL": endpoint,
        "GATEWAY_PORT": endpoint.rpartition(":")[2],
        "IOT_MTLS_ENABLED": "0",
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": REGION,
        "SFTP_ENABLED": "0",
        "TMPDIR": str(temporary),
    }


if __name__ == "__main__":
    main()
