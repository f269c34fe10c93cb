"""Reading many small objects of a bucket past most of boto3, which spends more time on a request than the server does.

Signed and sent by botocore's own parts. Only an object that came whole is taken; anything else, a missing object too,
is asked for again the long way, which knows what to do about it.
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
    """Whole objects of one bucket. Safe to use from several threads."""

    def __init__(self, bucket: Bucket) -> None:
        self._open = False
        try:
            client: Any = bucket.client
            self._credentials: Any = boto3.session.Session().get_credentials()
            url = client.generate_presigned_url(
                "get_object", Params={"Bucket": bucket.name, "Key": bucket.prefix + "k"}
            )
        except (BotoCoreError, EndpointError):
            return  # the long way says what is wrong
        self._base = url.partition("?")[0].removesuffix("k")
        self._region = client.meta.region_name
        self._http = client._endpoint.http_session  # noqa: SLF001 - its proxies, certificates, time-outs and connections
        self._open = bool(self._region)

    def get(self, key: str) -> bytes | None:
        """An object, or None: ask the long way."""
        if not self._open:
            return None
        try:
            request = AWSRequest("GET", self._base + quote(key))
            S3SigV4Auth(self._credentials.get_frozen_credentials(), "s3", self._region).add_auth(request)
            answer = self._http.send(request.prepare())
            body: bytes = answer.content
        except (BotoCoreError, OSError):
            self._open = False
            return None
        if answer.status_code == 200 and answer.headers.get("Content-Length") == str(len(body)):
            return body
        self._open = answer.status_code in {200, 404}
        return None
