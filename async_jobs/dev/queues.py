"""Create queues on an SQS endpoint that is not AWS, without an AWS library.

The supervisor calls this for `--sqs-endpoint`; our own server is told its queues
at its start. Requests are not signed: local servers do not check. Queues at AWS
belong to whoever pays for them and are never created here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from async_jobs.errors import ConfigError, TransportError

_TIMEOUT_SECONDS = 10.0
# moto finds the service by the scope in this header.
_UNSIGNED = (
    "AWS4-HMAC-SHA256 Credential=local/20200101/us-east-1/sqs/aws4_request, "
    "SignedHeaders=host, Signature=none"
)


def create_queues(endpoint: str, names: Sequence[str]) -> dict[str, str]:
    """Create each queue, or find it; name → URL. Blocks.

    Raises ConfigError for AWS's own endpoint and TransportError when it does not answer.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(["--sqs-endpoint: is no URL; give one like http://127.0.0.1:4566"])
    if f".{parts.hostname}".endswith((".amazonaws.com", ".amazonaws.com.cn")):
        raise ConfigError(
            [
                "--sqs-endpoint: queues at AWS are not created by this command; create them, and "
                "set ASYNC_JOBS_SQS_QUEUE_<USE_CASE> to the URL of each"
            ]
        )
    return {name: _create(endpoint, name) for name in names}


def _create(endpoint: str, name: str) -> str:
    try:
        status, answer = _post(endpoint, "CreateQueue", {"QueueName": name})
        url = json.loads(answer).get("QueueUrl")
    except (OSError, HTTPException, ValueError) as error:
        raise TransportError(
            name, f"no SQS server answered at the given endpoint: {error}"
        ) from error
    if not url:
        raise TransportError(name, f"could not be created; the endpoint answered {status}")
    return str(url)


def _post(endpoint: str, action: str, request: dict[str, str]) -> tuple[int, bytes]:
    parts = urlsplit(endpoint)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
    headers = {
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": f"AmazonSQS.{action}",
        "Authorization": _UNSIGNED,
    }
    try:
        connection.request("POST", parts.path or "/", json.dumps(request), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
