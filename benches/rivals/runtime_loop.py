"""Imports a handler, then serves event after event: a runtime interface client lighter than awslambdaric."""

import http.client
import importlib
import json
import os
import sys

INVOCATION = "/2018-06-01/runtime/invocation"


def main(module: str) -> None:
    """Serves for ever."""
    handler = importlib.import_module(module).handler
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        connection.request("GET", f"{INVOCATION}/next")
        response = connection.getresponse()
        event = json.loads(response.read())
        request_id = response.headers["lambda-runtime-aws-request-id"]
        answer = json.dumps(handler(event, None)).encode()
        connection.request("POST", f"{INVOCATION}/{request_id}/response", answer)
        connection.getresponse().read()


if __name__ == "__main__":
    main(sys.argv[1])
