"""What botocore knows and does: who we are, where a bucket is, and how any key is listed."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from dsocr_batch.errors import UsageError
from dsocr_batch.names import display_text
from dsocr_batch.objects.records import (
    NoSuchBucket,
    ObjectInfo,
    ObjectsDenied,
    ObjectsUnreachable,
    ObjectUrl,
    PassingError,
    first_line,
    object_info,
)

if TYPE_CHECKING:
    from botocore.config import Config
    from obstore.store import S3Credential

PAGE_KEYS = 1000
"""Of one answer to a listing; S3 gives no more."""

_AMAZON = re.compile(r"https://s3(?:\.[a-z0-9-]+)?\.(amazonaws\.com(?:\.cn)?)")
_ASK_CREDENTIALS_EVERY = timedelta(minutes=5)


class Account:
    """Who reads or writes below a URL, and where it lies."""

    def __init__(self, url: ObjectUrl) -> None:
        """Find credentials and endpoint, and ask for the bucket.

        Raises:
            UsageError: no credentials, or a profile that does not exist or is not whole.
            NoSuchBucket, ObjectsUnreachable: as their names say.
        """
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415
        from botocore.session import Session  # noqa: PLC0415

        logging.getLogger("botocore").setLevel(logging.WARNING)  # below, it tells signatures
        self._url = url
        session = Session()
        try:
            self._credentials = session.get_credentials()
            self._client = session.create_client("s3", config=self._config())
        except BotoCoreError as error:
            raise UsageError(f"{url}: {first_line(error)}") from error
        self.region = self._look_up_region()

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def page(self, prefix: str, after: str) -> Sequence[ObjectInfo]:
        """Return the next page of a listing; empty at its end.

        Raises:
            NoSuchBucket, ObjectsDenied: as their names say.
            PassingError: no answer, or none that helps.
        """
        root = f"{self._url.key}/" if self._url.key else ""
        place = {"Bucket": self._url.bucket, "Prefix": f"{root}{prefix}/" if prefix else root}
        if after:
            place["StartAfter"] = root + after
        answer = self._asked(self._client.list_objects_v2, MaxKeys=PAGE_KEYS, **place)
        return [
            object_info(
                listed["Key"].removeprefix(root),
                listed["Size"],
                listed["LastModified"],
                etag=listed.get("ETag"),
            )
            for listed in answer.get("Contents", ())
        ]

    def _asked(self, operation: Callable[..., Any], **arguments: object) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            return operation(**arguments)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            code = display_text(str(error.response["Error"]["Code"]))
            if status == HTTPStatus.NOT_FOUND:
                raise NoSuchBucket(f"{self._url.root}: there is no such bucket") from error
            if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise ObjectsDenied(
                    f"{self._url} may not be listed with these credentials ({code}); they need "
                    "s3:ListBucket on the bucket"
                ) from error
            raise PassingError(f"{status} {code}") from error
        except BotoCoreError as error:
            raise PassingError(first_line(error)) from error

    def credentials(self) -> S3Credential:
        """Return the credentials of this moment; botocore renews them when it is time."""
        if self._credentials is None:
            raise AssertionError("asked for credentials of a public bucket")
        now = self._credentials.get_frozen_credentials()
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": datetime.now(UTC) + _ASK_CREDENTIALS_EVERY,
        }

    @property
    def endpoint(self) -> str:
        """The address of the store: one we were told, or the bucket's own at Amazon."""
        told: str = self._client.meta.endpoint_url
        amazon = _AMAZON.fullmatch(told)
        if amazon is None:
            return told
        host = f"s3.{self.region}.{amazon[1]}"
        return f"https://{self._url.bucket}.{host}" if self.bucket_is_host else f"https://{host}"

    @property
    def bucket_is_host(self) -> bool:
        """Whether the bucket is named in the host's name; one with dots fits no certificate."""
        return "." not in self._url.bucket and bool(
            _AMAZON.fullmatch(self._client.meta.endpoint_url)
        )

    @property
    def is_anonymous(self) -> bool:
        """True for a public bucket, read by nobody in particular."""
        return self._credentials is None

    def _config(self) -> Config:
        from botocore import UNSIGNED  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        if self._credentials is None and not os.environ.get("AWS_SKIP_SIGNATURE"):
            raise UsageError(
                f"{self._url}: no AWS credentials were found: neither in the environment, nor in "
                "~/.aws, nor a role of this machine. `aws sts get-caller-identity` tells when "
                "there are. For a public bucket set AWS_SKIP_SIGNATURE=true"
            )
        return Config(
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 3},
            signature_version=UNSIGNED if self._credentials is None else None,
        )

    def _look_up_region(self) -> str:
        """Ask the bucket where it is, which it tells also those whom it tells nothing else."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            answer = self._client.head_bucket(Bucket=self._url.bucket)
        except ClientError as error:
            answer = error.response
        except BotoCoreError as error:
            raise ObjectsUnreachable(
                f"{self._url} cannot be reached: {first_line(error)}. Check the network and the "
                "credentials, and AWS_ENDPOINT_URL if the store is not Amazon's"
            ) from error
        told = answer["ResponseMetadata"]
        if told["HTTPStatusCode"] == HTTPStatus.NOT_FOUND:
            raise NoSuchBucket(f"{self._url.root}: there is no such bucket")
        region: str | None = told["HTTPHeaders"].get("x-amz-bucket-region")
        return region or self._client.meta.region_name
