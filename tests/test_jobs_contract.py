"""The deployed stack's jobs API, called with whatever its OpenAPI document allows and forbids."""

from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import contract
import pytest
import requests
import schemathesis
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, Phase, settings
from jobs import Jobs
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from uploaded import Uploaded

EXAMPLES = 40
"""Counts the requests that are tried of each operation."""

schema = schemathesis.openapi.from_path(contract.DOCUMENT)


@pytest.fixture(scope="module")
def jobs(cloud):
    stack = Uploaded(cloud, name="contract")
    stack.deploy(ClusterName="contract", JobsRateLimit="10000")
    jobs = Jobs(cloud, stack)
    jobs.push("team/app")
    yield jobs
    stack.delete()


@pytest.fixture(scope="module")
def session(cloud, jobs):
    session = requests.Session()
    session.trust_env = False
    session.mount("https://", ToTheCloud(cloud.endpoint))
    session.auth = Signature(Credentials(cloud.access_key_id, cloud.secret_access_key), cloud.region)
    return session


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_the_document_has(jobs, session, case):
    response = case.call(base_url=jobs.api.url, session=session)
    # No node is there to tell what a tag of another registry is.
    assert response.status_code < 500 or "name the image by its digest" in response.text, response.text
    case.validate_response(
        response,
        checks=[
            status_code_conformance,
            content_type_conformance,
            response_headers_conformance,
            response_schema_conformance,
            negative_data_rejection,
        ],
    )


class ToTheCloud(HTTPAdapter):
    """Sends what is for the API's address on AWS to the local cloud."""

    def __init__(self, endpoint: str):
        super().__init__()
        self._endpoint = urlsplit(endpoint)

    def send(self, request: requests.PreparedRequest, **options) -> requests.Response:
        """Sends one request."""
        address = urlsplit(request.url)
        request.headers["Host"] = address.netloc
        request.url = urlunsplit(("http", self._endpoint.netloc, address.path, address.query, ""))
        return super().send(request, **options)


class Signature(AuthBase):
    """Signs requests (AWS Signature Version 4)."""

    def __init__(self, credentials: Credentials, region: str):
        self._credentials, self._region = credentials, region

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Signs one request, its query as AWS spells it."""
        url = urlsplit(request.url)
        query = urlencode(parse_qsl(url.query, keep_blank_values=True), quote_via=quote, safe="-_.~")
        request.url = urlunsplit((url.scheme, url.netloc, url.path, query, ""))
        body = request.body.encode() if isinstance(request.body, str) else request.body or b""
        unsigned = AWSRequest(request.method, request.url, {"Host": url.netloc}, body)
        SigV4Auth(self._credentials, "execute-api", self._region).add_auth(unsigned)
        request.headers.update(dict(unsigned.headers.items()))
        return request
