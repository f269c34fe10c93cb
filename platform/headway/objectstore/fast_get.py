"""Reads small objects without most of boto3, which spends more time on a request than the server does.

botocore signs and sends the requests. Any result but a complete object is left to `Bucket`, which retries and raises.
"""

from typing import Any
from urllib.parse import quote

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError

from headway.errors import EndpointError
from headway.objectstore.bucket import Bucket


class FastGet:
    """Reads whole objects of one bucket. Safe to use from several threads."""

    def __init__(self, bucket: Bucket) -> None:
        self._usable = False
        try:
            client: Any = bucket.client
            self._credentials: Any = boto3.session.Session().get_credentials()
            url = client.generate_presigned_url(
                "get_object", Params={"Bucket": bucket.name, "Key": bucket.prefix + "k"}
            )
        except (BotoCoreError, EndpointError):
            return  # `Bucket` raises the same error, translated
        self._base = url.partition("?")[0].removesuffix("k")
        self._region = client.meta.region_name
        self._http = client._endpoint.http_session  # noqa: SLF001 - reuses proxies, certificates, time-outs, pool
        self._usable = bool(self._region)

    def get(self, key: str, limit: int) -> bytes | None:
        """The first `limit` bytes of an object, or None: read them through `Bucket`."""
        if not self._usable:
            return None
        try:
            request = AWSRequest("GET", self._base + quote(key), headers={"Range": f"bytes=0-{limit - 1}"})
            S3SigV4Auth(self._credentials.get_frozen_credentials(), "s3", self._region).add_auth(request)
            response = self._http.send(request.prepare())
            body: bytes = response.content
        except (BotoCoreError, OSError):
            self._usable = False
            return None
        if response.status_code == 416:  # it has no first byte
            return b""
        complete = response.headers.get("Content-Length") == str(len(body))
        if response.status_code in {200, 206} and complete and len(body) <= limit:
            return body
        self._usable = response.status_code in {200, 206, 404}
        return None
