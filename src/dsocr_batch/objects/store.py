"""The objects below one URL: listed, read, downloaded, put and deleted.

Two libraries, each for what it does well. obstore moves the bytes: a request costs a third of
botocore's CPU time, nearly all of it outside of Python's lock. botocore knows where an AWS
account's credentials, region and endpoint are told, and lists the few keys that obstore cannot
(``aws.Account``). obstore's own coroutines abort the interpreter at its exit every other time
(NOTES.md, "Object stores"), so its blocking calls are made in threads.

A request that fails for a reason that may pass is made again, for ``PATIENCE_S``.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self, TypeVar

from dsocr_batch.errors import UsageError
from dsocr_batch.names import display_path
from dsocr_batch.objects.aws import PAGE_KEYS, Account
from dsocr_batch.objects.records import (
    NoSuchBucket,
    ObjectChanged,
    ObjectInfo,
    ObjectsDenied,
    ObjectsUnreachable,
    ObjectUrl,
    ObjectVanished,
    ObjectVersion,
    PassingError,
    PreconditionFailed,
    first_line,
    key_problem,
    object_info,
)

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutMode
    from obstore.store import ClientConfig, RetryConfig, S3Config
    from obstore.store import ObjectStore as AnyStore

PATIENCE_S = 240.0
"""A store that is away for so long is given up."""
MAX_PAUSE_S = 15.0
REQUESTS = 32
"""At once, of one ``ObjectStore``: each is a thread."""

_CONNECT_TIMEOUT = "5s"
_READ_TIMEOUT = "30s"
_REQUEST_TIMEOUT = "1h"  # of a whole body, against one that trickles
_CHUNK_BYTES = 1 << 20
_PARTS_AT_ONCE = 2  # of 5 MB, of one file: more share the line until none ends in time

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)


def open_store(url: ObjectUrl) -> ObjectStore:
    """Return the objects below a URL; asks once whether its bucket is there.

    Credentials, region and endpoint are found as the AWS command line finds them.

    Raises:
        UsageError: the libraries or credentials are missing.
        NoSuchBucket, ObjectsUnreachable: as their names say.
    """
    try:
        import botocore.session  # noqa: F401, PLC0415
        import obstore.store  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            f"{url}: object stores need obstore and botocore: pip install 'dsocr-batch[s3]'"
        ) from error
    if url.scheme == "s3":
        account = Account(url)
        return ObjectStore(url, _s3_store(url, account), account)
    try:
        store = obstore.store.from_url(
            str(url), client_options=_client_options(""), retry_config=_no_retries()
        )
    except obstore.exceptions.BaseError as error:
        raise UsageError(f"{url}: {first_line(error)}") from error
    return ObjectStore(url, store, None)


def _s3_store(url: ObjectUrl, account: Account) -> AnyStore:
    from obstore.store import S3Store  # noqa: PLC0415

    config: S3Config = {
        "endpoint": account.endpoint,
        "region": account.region,
        "skip_signature": account.is_anonymous,
        "virtual_hosted_style_request": account.bucket_is_host,
        # Of several at once, S3 tells which it refuses in an answer that looks like success, and
        # obstore has no name for that. One by one, a right that is missing is told at once.
        "disable_bulk_delete": True,
    }
    return S3Store(
        url.bucket,
        prefix=url.key or None,
        config=config,
        client_options=_client_options(account.endpoint),
        retry_config=_no_retries(),
        credential_provider=None if account.is_anonymous else account.credentials,
    )


def _client_options(endpoint: str) -> ClientConfig:
    return {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": _CONNECT_TIMEOUT,
        "read_timeout": _READ_TIMEOUT,
        "timeout": _REQUEST_TIMEOUT,
    }


def _no_retries() -> RetryConfig:
    return {"max_retries": 0}  # they are made here, where a stop can end them


class ObjectStore:
    """The objects below one URL. Keys are relative to it; safe to use from any event loop."""

    def __init__(self, url: ObjectUrl, store: AnyStore, account: Account | None) -> None:
        """Use ``open_store``."""
        self.url = url
        self._store = store
        self._account = account
        self._threads = ThreadPoolExecutor(REQUESTS, thread_name_prefix="objects")
        self._is_closed = False

    def close(self) -> None:
        """Begin nothing more; what is under way ends by itself, a download soon."""
        self._is_closed = True
        if self._account is not None:
            self._account.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def listed(
        self, prefix: str = "", *, after: str = ""
    ) -> AsyncIterator[Sequence[ObjectInfo]]:
        """Yield pages of the objects in the order of their keys.

        Args:
            prefix: only those below it: whole segments, no slash at its end.
            after: only those after this key. Keys are relative to the store's URL in any case,
                and come as they are, also those that ``key_problem`` would name.

        Raises:
            NoSuchBucket, ObjectsDenied, ObjectsUnreachable: as their names say.
        """
        while True:
            try:
                async for page in self._listed_fast(prefix, after):
                    yield page
                    after = page[-1].key
                return
            except PassingError as error:
                if self._account is None:
                    raise ObjectsUnreachable(f"{self.url} cannot be listed: {error}") from None
            # botocore minds no key, and says why a listing is refused. One page of a thousand
            # gets over an odd key, and over a bad moment.
            page = await self._patiently(partial(self._account.page, prefix, after))
            if not page:
                return
            yield page
            after = page[-1].key

    async def _listed_fast(self, prefix: str, after: str) -> AsyncIterator[Sequence[ObjectInfo]]:
        if after and (problem := key_problem(after)):
            raise PassingError(problem)
        stream = self._store.list(prefix or None, offset=after or None, chunk_size=PAGE_KEYS)
        pages = iter(stream)
        while page := await self._in_thread(partial(_next_page, pages)):
            yield page

    async def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object; None if there is none."""

        def ask() -> ObjectInfo | None:
            try:
                with self._answering(key):
                    return _info(self._store.head(key), key)
            except ObjectVanished:
                return None

        return await self._patiently(ask)

    async def get(self, key: str) -> tuple[bytes, ObjectInfo] | None:
        """Return a small object, whole, and what is known of it; None if there is none."""

        def ask() -> tuple[bytes, ObjectInfo] | None:
            try:
                with self._answering(key):
                    answer = self._store.get(key)
                    return bytes(answer.bytes()), _info(answer.meta, key)
            except ObjectVanished:
                return None

        return await self._patiently(ask)

    async def download(self, info: ObjectInfo, path: Path) -> ObjectInfo:
        """Write an object to a file and return what is known of it.

        A connection that is cut goes on where it ended. The file holds this version or, on any
        error, a part of it.

        Raises:
            ObjectChanged: it is another by now than ``info`` says.
            ObjectVanished: it is no more there.
            ObjectsDenied, ObjectsUnreachable: as their names say.
            OSError: the file cannot be written.
        """
        with path.open("wb") as file:
            return await self._patiently(
                lambda: self._download_rest(info, file), progress=file.tell
            )

    def _download_rest(self, info: ObjectInfo, file: IO[bytes]) -> ObjectInfo:
        options: GetOptions = {"if_match": info.version.etag}
        if begin := file.tell():
            options["range"] = {"offset": begin}
        with self._answering(info.key):
            answer = self._store.get(info.key, options=options)
            stream = iter(answer.stream(_CHUNK_BYTES))
        if answer.meta["size"] != info.bytes:
            raise ObjectChanged(f"{self._shown(info.key)} has changed")
        while not self._is_closed:
            with self._answering(info.key):
                chunk = next(stream, b"")
            if not chunk:
                break
            file.write(chunk)
        file.flush()
        if file.tell() != info.bytes:
            raise PassingError("it ended before its end")
        return _info(answer.meta, info.key)

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        only_if_absent: bool = False,
        only_if: ObjectVersion | None = None,
    ) -> ObjectVersion:
        """Put an object, atomically, and return which version it is.

        Raises:
            PreconditionFailed: there is one, or another one; it is left as it is.
            NoSuchBucket, ObjectsDenied, ObjectsUnreachable: as their names say.
        """
        mode: PutMode = "create" if only_if_absent else "overwrite"
        if only_if is not None:
            mode = {"e_tag": only_if.etag}
            if only_if.version is not None:
                mode["version"] = only_if.version

        def ask() -> ObjectVersion:
            with self._answering(key, creating=only_if_absent):
                put = self._store.put(key, data, mode=mode, use_multipart=False)
                return ObjectVersion(etag=put["e_tag"], version=put["version"])

        try:
            return await self._patiently(ask)
        except (ObjectVanished, ObjectChanged) as error:
            if isinstance(error, ObjectVanished) and only_if is None:
                raise NoSuchBucket(f"{self.url.root}: there is no such bucket") from error
            raise PreconditionFailed(f"{self._shown(key)} is another's by now") from error

    async def put_file(self, key: str, path: Path) -> None:
        """Put a file of any size as an object, atomically; one that is there is replaced.

        Raises:
            NoSuchBucket, ObjectsDenied, ObjectsUnreachable: as their names say.
            OSError: the file cannot be read.
        """

        def ask() -> None:
            with path.open("rb") as file, self._answering(key):
                self._store.put(key, file, max_concurrency=_PARTS_AT_ONCE)

        try:
            await self._patiently(ask)
        except ObjectVanished as error:
            raise NoSuchBucket(f"{self.url.root}: there is no such bucket") from error

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there are no error.

        Raises:
            ObjectsDenied, ObjectsUnreachable: as their names say.
        """

        def ask() -> None:
            with self._answering(keys[0]):
                self._store.delete(keys)

        if keys:
            await self._patiently(ask)

    def _shown(self, key: str) -> str:
        return display_path(str(self.url.child(key)))

    @contextmanager
    def _answering(self, key: str, *, creating: bool = False) -> Iterator[None]:
        """Give what obstore raises a name, without what the store's answer quotes: signatures.

        "Already exists" is its name for status 409 too, by which S3 asks to try again because
        another request for the key is under way. Only to a put that creates it means that there is
        one.

        Nothing but a call of obstore belongs inside: its ``FileNotFoundError`` is Python's own.
        """
        from obstore import exceptions  # noqa: PLC0415

        try:
            yield
        except FileNotFoundError:
            raise ObjectVanished(f"{self._shown(key)} is not there") from None
        except exceptions.PreconditionError:
            raise ObjectChanged(f"{self._shown(key)} has changed") from None
        except exceptions.AlreadyExistsError as error:
            if creating:
                raise ObjectChanged(f"{self._shown(key)} is there") from None
            raise PassingError(first_line(error)) from None
        except exceptions.PermissionDeniedError:
            raise ObjectsDenied(f"{self._shown(key)}: access denied") from None
        except exceptions.BaseError as error:
            raise PassingError(first_line(error)) from None

    async def _in_thread(self, ask: Callable[[], _Result]) -> _Result:
        try:
            answer = asyncio.get_running_loop().run_in_executor(self._threads, ask)
        except RuntimeError:  # what a pool says that takes nothing more
            raise ObjectsUnreachable(f"{self.url} is not used any more") from None
        return await answer

    async def _patiently(
        self, ask: Callable[[], _Result], progress: Callable[[], int] = lambda: 0
    ) -> _Result:
        """Ask until there is an answer, or patience is over since the last progress."""
        pause_s, reached, since = 0.2, 0, time.monotonic()
        while True:
            try:
                return await self._in_thread(ask)
            except PassingError as error:
                if progress() > reached:
                    pause_s, reached, since = 0.2, progress(), time.monotonic()
                waited_s = time.monotonic() - since
                if waited_s + pause_s > PATIENCE_S:
                    raise ObjectsUnreachable(
                        f"{self.url} has not answered for {waited_s:.0f} s: {error}"
                    ) from error
                if 1 < pause_s <= 2:  # once
                    log.warning("%s: %s; trying again", self.url, error)
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 (no secret)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)


def _next_page(stream: Iterator[Sequence[ObjectMeta]]) -> Sequence[ObjectInfo]:
    from obstore.exceptions import BaseError  # noqa: PLC0415

    try:
        page = next(stream, ())
    except BaseError as error:
        raise PassingError(first_line(error)) from None
    return [_info(meta, meta["path"]) for meta in page]


def _info(meta: ObjectMeta, key: str) -> ObjectInfo:
    return object_info(
        key, meta["size"], meta["last_modified"], etag=meta["e_tag"], version=meta["version"]
    )
