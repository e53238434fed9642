"""Fetches a published file into the user's cache, and keeps it only if its checksum matches."""

import contextlib
import gzip
import hashlib
import http.client
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.runtime import cache

TIMEOUT_SECONDS = 30.0  # without a byte from the server
BLOCK = 2**20  # bytes read at a time
# What reading a response may raise. Unpacking a damaged gzip raises the last two, or an OSError.
FAILURES = (OSError, ValueError, http.client.HTTPException, EOFError, zlib.error)


class Unfetched(Exception):
    """No address returned the file; `reasons` has one line for each address, in order."""

    def __init__(self, reasons: Sequence[str]):
        """Keeps the reasons."""
        super().__init__("; ".join(reasons))
        self.reasons = tuple(reasons)


def fetch(
    path: Path, addresses: Sequence[str], *, md5: str, max_bytes: int, gzipped: bool = False
) -> None:
    """Writes the file `path` from the first address that has it intact.

    Args:
        path: in the cache; the folder is made if it is missing.
        addresses: of the same file, tried in order.
        md5: of the unpacked file, in hexadecimal digits.
        max_bytes: how much of a response is read; unpacked bytes count.
        gzipped: whether the responses must be unpacked.

    Raises:
        Unfetched: no address returns it.
        OSError: it cannot be written.
    """
    # A full disk is no reason to try the next address: its OSError is not caught here.
    reasons: list[str] = []
    for address in addresses:
        digest, size = hashlib.md5(usedforsecurity=False), 0
        try:
            with cache.writing(path) as file:
                for block in _blocks(address, max_bytes, gzipped=gzipped):
                    digest.update(block)
                    size += file.write(block)
                if digest.hexdigest() != md5:
                    found = f"{size} bytes with the MD5 {digest.hexdigest()}"
                    raise Unfetched([f"{found}, expected {md5}"])
            return
        except Unfetched as error:
            reasons += error.reasons
    raise Unfetched(reasons)


def _blocks(address: str, max_bytes: int, *, gzipped: bool) -> Iterator[bytes]:
    """Yields the response in blocks; an error of the network becomes `Unfetched`."""
    size = 0
    try:
        with (
            urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as response,
            gzip.open(response) if gzipped else contextlib.nullcontext(response) as file,
        ):
            while size < max_bytes and (block := file.read(BLOCK)):
                size += len(block)
                yield block
    except urllib.error.HTTPError as error:
        error.close()  # the error is also the open response
        raise Unfetched([str(error)]) from error
    except FAILURES as error:
        raise Unfetched([" ".join(str(error).split()) or type(error).__name__]) from error
