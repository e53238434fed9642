"""Names of places that the user gives: a folder, or a bucket as gs://bucket/name."""

import errno
import os
import re
from pathlib import Path
from typing import Any

from pipeline.runtime import errors

STORES = {"gs": "gcsfs", "s3": "s3fs"}  # schemes, and the packages that speak with the stores
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HALF = re.compile(rf"({'|'.join(STORES)}):/?(?!/)")  # such as gs:/bucket, which is a folder "gs:"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


def is_bucket(path: str | os.PathLike[str]) -> bool:
    """Says whether a path lies in a bucket."""
    return "://" in os.fspath(path)


def of(text: str, *, name: str = "path", stores: tuple[str, ...] = tuple(STORES)) -> Any:
    """Returns the path that `text` names: absolute, or in a bucket.

    Args:
        text: what the user wrote; "~" is the home folder.
        name: of the flag or field, for errors.
        stores: schemes of buckets that work here.

    Raises:
        InputError: there can be no such path, or the package for its store is not installed.
    """
    shown = f"{name}={text}"
    if half := _HALF.match(text):
        raise errors.InputError(f"{shown}: a bucket is written {half[1]}://bucket/name")
    if not (found := _SCHEME.match(text)):
        return _local(text)
    known = ", ".join(f"{scheme}://" for scheme in stores)
    if found[1] not in stores:
        wanted = f"be a folder, or begin with {known}" if known else "lie on this machine"
        raise errors.InputError(f"{shown} must {wanted}")
    return _in_bucket(text, found[1], shown)


def _in_bucket(text: str, scheme: str, shown: str) -> Any:
    errors.check_text("path", text)
    bucket, _, key = text[len(scheme) + 3 :].partition("/")
    parts = key.rstrip("/").split("/") if key.rstrip("/") else []
    if not _BUCKET.fullmatch(bucket):
        raise errors.InputError(
            f"{shown}: {bucket!r} can be no bucket: write {scheme}://bucket/name"
        )
    if not parts:
        raise errors.InputError(f"{shown} needs a name after the bucket: {scheme}://{bucket}/name")
    # Libraries below take "#" for a generation, and the others for patterns.
    if any(part in ("", ".", "..") for part in parts) or re.search(r"[#?*\[\]\\\x00-\x1f]", key):
        raise errors.InputError(
            f"{shown}: a name in a bucket has no empty part, '.', '..', or one of #?*[]\\"
        )
    try:
        from pipeline.runtime.storage import bucket as buckets

        buckets.connect(scheme)
    except ImportError:
        wanted = extra(scheme)
        raise errors.InputError(
            f"{shown} needs the package {STORES[scheme]}: pip install 'vae-pipeline[{wanted}]', or "
            f"make setup EXTRAS={wanted}"
        ) from None
    return buckets.BucketPath(text.rstrip("/"))


def extra(scheme: str) -> str:
    """Returns the name of the extra of this package for a store."""
    return {"gs": "gcs"}.get(scheme, scheme)


def _local(text: str) -> Path:
    try:
        found = Path(text).expanduser().absolute()
    except RuntimeError:
        raise errors.InputError(
            f"{text}: there is no home folder for {Path(text).parts[0]}: give the whole path"
        ) from None
    errors.check_text("path", str(found))
    try:
        os.lstat(found)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise errors.InputError(f"{text}: {error.strerror}: give another path") from None
    return found
