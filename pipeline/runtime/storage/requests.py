"""Requests to an object store: one connection for all, conditional writes, and plain errors.

fsspec's file systems send the requests. They repeat what the store refuses for a while (429, 5xx)
about six times, with growing pauses, and then raise errors of many types. Here these become an
`OSError`, which every command reports in one line.
"""

import contextlib
import errno
import functools
import json
import logging
import secrets
from collections.abc import Iterator
from typing import Any

from pipeline.runtime import errors

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
_REFUSED = (401, 403)
_LOGINS = {
    "gs": "log in with `gcloud auth application-default login`, or set "
    "GOOGLE_APPLICATION_CREDENTIALS",
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}


@functools.cache
def connect(scheme: str) -> Any:
    """Returns fsspec's file system of a store, which etils and Orbax use, too.

    Raises:
        ImportError: its package is not installed.
    """
    import fsspec

    # Another process may have written meanwhile, so nothing may be remembered of a folder.
    for name in {"gs": ("gs", "gcs"), "s3": ("s3",)}[scheme]:
        fsspec.config.conf.setdefault(name, {}).update(_options(scheme))
    # They log tracebacks of what they then raise.
    for name in ("gcsfs", "s3fs", "fsspec", "google.auth", "aiobotocore", "botocore"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if scheme == "gs":
        return fsspec.filesystem("gcs", finalize_on_close=True)  # as etils asks for it
    return fsspec.filesystem(scheme)


def _options(scheme: str) -> dict[str, Any]:
    if scheme == "gs":
        import aiohttp

        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        return {"use_listings_cache": False, "timeout": timeout}
    timeouts = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
    return {"use_listings_cache": False, "config_kwargs": timeouts}


@contextlib.contextmanager
def asking(path: Any) -> Iterator[None]:
    """Turns what a store's library raises in the block into an `OSError` that names `path`.

    Raises:
        FileNotFoundError: there is no such object, or no such bucket.
        FileExistsError: it exists, and should be created.
        PermissionError: the store refuses the request.
        OSError: the store cannot be reached, or fails.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise type(error)(_number(error), _text(error), str(path)) from None
    except errors.InputError:
        raise
    except Exception as error:
        raise as_os_error(error, path) from error


def as_os_error(error: BaseException, path: Any) -> OSError:
    """Returns the `OSError` that says what a store's library means by `error`."""
    scheme, code, text = str(path).partition("://")[0], status(error), _text(error)
    if code in _REFUSED or isinstance(error, PermissionError) or "Forbidden" in str(error):
        login = _LOGINS.get(scheme, "log in")
        return PermissionError(errno.EACCES, f"the store refuses {path} ({text}): {login}")
    if code == 404:
        return FileNotFoundError(errno.ENOENT, text, str(path))
    return OSError(
        errno.EIO,
        f"the store of {path} fails or cannot be reached ({text}): what was complete is intact; "
        "run the same command again",
    )


def status(error: BaseException) -> int:
    """Returns the status of HTTP that an error carries, or its cause, or 0."""
    found = getattr(error, "code", None) or getattr(error, "status", None)
    response = getattr(error, "response", None)
    if found is None and isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")  # botocore's
    if found is None and error.__cause__ is not None:  # s3fs raises OSErrors from botocore's
        return status(error.__cause__)
    try:
        return int(found or 0)
    except (TypeError, ValueError):
        return 0


def create(path: Any, content: bytes) -> bool:
    """Creates an object; returns False if another one is there.

    A store may do the write and lose its answer. The repeated request then finds the object, so an
    object of the same content counts as created.
    """
    with asking(path):
        try:
            path.store.pipe_file(str(path), content, mode="create")
        except FileExistsError:
            pass
        except Exception as error:
            if status(error) not in (409, 412):
                raise
        else:
            return True
    return path.read_bytes() == content


def replace(path: Any, content: bytes, version: str) -> bool:
    """Replaces an object if it still has the version; returns whether it had."""
    store, name = path.store, str(path)
    with asking(path):
        try:
            if name.startswith("gs://"):
                _replace_in_gcs(store, name, content, version)
            else:
                store.pipe_file(name, content, IfMatch=version)
        except FileNotFoundError:
            return False
        except Exception as error:
            if not isinstance(error, FileExistsError) and status(error) not in (409, 412):
                raise
        else:
            return True
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes() == content
    return False


def _replace_in_gcs(store: Any, name: str, content: bytes, generation: str) -> None:
    bucket, key, _ = store.split_path(name)
    about = json.dumps({"name": key}).encode()
    edge = secrets.token_hex(16).encode()
    parts = (b"application/json; charset=UTF-8", about), (b"application/octet-stream", content)
    body = b"".join(b"--%b\r\nContent-Type: %b\r\n\r\n%b\r\n" % (edge, *part) for part in parts)
    store.call(
        "POST",
        f"{store._location}/upload/storage/v1/b/{bucket}/o",
        uploadType="multipart",
        ifGenerationMatch=generation,
        headers={"Content-Type": f"multipart/related; boundary={edge.decode()}"},
        data=body + b"--%b--" % edge,
        json_out=True,
    )


def read_version(path: Any) -> tuple[bytes, str]:
    """Returns the content of an object and its version, for `replace`."""
    while True:
        with asking(path):
            before, content, after = (
                path.store.info(str(path)),
                path.store.cat_file(str(path)),
                path.store.info(str(path)),
            )
        versions = [str(info.get("generation") or info.get("ETag")) for info in (before, after)]
        if versions[0] == versions[1]:
            return content, versions[0]


def _number(error: OSError) -> int:
    kinds = {
        FileNotFoundError: errno.ENOENT,
        FileExistsError: errno.EEXIST,
        NotADirectoryError: errno.ENOTDIR,
        IsADirectoryError: errno.EISDIR,
    }
    return error.errno or kinds[type(error)]


def _text(error: BaseException) -> str:
    """Returns the first line of an error, or its type if it has no text."""
    lines = str(error).strip().splitlines()
    return (lines[0][:200] if lines else "") or type(error).__name__
