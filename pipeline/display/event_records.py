"""The records of event files: framed with checksums, and found again behind damage."""

import contextlib
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

HEAD = 12  # bytes of a record before its data


def tensorboardx() -> Any:
    """Returns tensorboardX, imported at its first use: it imports torch if torch is installed."""
    import tensorboardX

    return tensorboardX


def framed(data: bytes) -> bytes:
    """Returns a record: the length of the data, the data, and the masked CRC-32C of both."""
    checksum = tensorboardx().record_writer.masked_crc32c
    length = struct.pack("<Q", len(data))
    return b"".join(
        (length, struct.pack("<I", checksum(length)), data, struct.pack("<I", checksum(data)))
    )


def read(content: memoryview) -> Iterator[tuple[Any, memoryview]]:
    """Yields each whole record and its event; None, and its bytes, for what is damaged.

    Reading goes on after the damage. A record that is cut at the end of the file is left out.
    """
    at = 0
    while at < len(content):
        event, end = _record(content, at)
        if event is None:
            is_cut = end > len(content)
            follows = at < end < len(content) and _record(content, end)[0] is not None
            end = end if follows else _next_record(content, at + 1)
            if is_cut and end == len(content):
                return
        yield event, content[at:end]
        at = end


def _record(content: memoryview, at: int) -> tuple[Any, int]:
    """Returns the event of the record at a position, or None, and where the record ends.

    A record is a uint64 length, the masked CRC-32C of the length, the data, and the masked CRC-32C
    of the data. The end is after the content's end if the record is cut, and `at` if its length is
    damaged.
    """
    checksum = tensorboardx().record_writer.masked_crc32c
    if len(head := bytes(content[at : at + HEAD])) < HEAD:
        return None, at + HEAD
    length, length_checksum = struct.unpack("<QI", head)
    if checksum(head[:8]) != length_checksum:
        return None, at
    end = at + HEAD + length + 4
    if end > len(content):
        return None, end
    data = bytes(content[at + HEAD : end - 4])
    if content[end - 4 : end] == struct.pack("<I", checksum(data)):
        with contextlib.suppress(Exception):  # protocol buffers have an error of their own
            return tensorboardx().proto.event_pb2.Event.FromString(data), end
    return None, end


def _next_record(content: memoryview, start: int) -> int:
    """Returns where the next whole record begins, or the content's end; linear in the distance."""
    table = np.array(tensorboardx().crc32c.CRC_TABLE, np.uint32)
    values, size = np.frombuffer(content, np.uint8), 1 << 12
    while start < len(content) - HEAD:
        window = values[start : start + size + HEAD]
        # No record has 4 GB, so the upper half of its length is zero.
        num, zero = len(window) - HEAD + 1, window == 0
        upper = [zero[byte : byte + num] for byte in range(4, 8)]
        places = np.flatnonzero(np.logical_and.reduce(upper))
        bits = np.full(places.shape, 0xFFFFFFFF, np.uint32)
        for number in range(8):
            bits = table[(bits ^ window[places + number]) & 0xFF] ^ (bits >> 8)
        bits = ~bits
        masked = ((bits >> 15) | (bits << 17)) + np.uint32(0xA282EAD8)
        stored = np.zeros_like(masked)
        for number in range(4):
            stored |= window[places + 8 + number].astype(np.uint32) << np.uint32(8 * number)
        for place in places[masked == stored]:
            if _record(content, start + int(place))[0] is not None:
                return start + int(place)
        start, size = start + size, min(2 * size, 1 << 20)
    return len(content)
