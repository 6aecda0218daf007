"""A log as bytes of text, piece by piece, also where it lies there packed or in UTF-16."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from rig.errors import UsageError

PIECE = 1 << 20  # bytes that are read at once
STDIN = "-"

_OTHER = {
    b"\x28\xb5\x2f\xfd": "zstd -dc",
    b"PK\x03\x04": "unzip -p",
    b"\x04\x22\x4d\x18": "lz4 -dc",
}
_WIDE = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_NULS = 8  # one byte in so many is 0, and it is no text
# So many of them in a row are a hole: a line that was dead, a file system that lost its end.
_HOLE = re.compile(rb"\0{16,}")


def pieces(name: str) -> Iterator[bytes]:
    """A log as it comes, or as it lies there; "-" is standard input.

    UsageError where there is nothing to read, or it is no text: what was not looked at is not
    clean. So it is when the log ends before its packing does, after what could be read of it.
    """
    try:
        with _opened(name) as raw:
            yield from _text(name, _unpacked(name, raw))
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UsageError(f"{name}: packed, and damaged: {error}") from error
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}") from error


def _opened(name: str) -> io.BufferedReader:
    if name != STDIN:
        return Path(name).open("rb")
    if sys.stdin is None:
        raise UsageError("-: standard input is closed")
    return open(sys.stdin.fileno(), "rb", closefd=False)


def _unpacked(name: str, raw: io.BufferedReader) -> IO[bytes]:
    head = raw.peek(6)[:6]
    for magic, command in _OTHER.items():
        if head.startswith(magic):
            hint = f"{command} {name if name != STDIN else 'FILE'} | rig scan -"
            raise UsageError(f"{name}: packed in a way that is not read here", hint=hint)
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if head.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if head.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(raw)
    return raw


def _text(name: str, stream: IO[bytes]) -> Iterator[bytes]:
    first = _piece(stream)
    if not first:
        raise UsageError(f"{name}: it is empty: nothing was looked at")
    wide = next((codec for mark, codec in _WIDE.items() if first.startswith(mark)), "")
    rest = _HOLE.sub(b"", first).strip(b"\0")
    while not wide and not rest and (more := _piece(stream)):
        first = rest = _HOLE.sub(b"", more).strip(b"\0")  # a hole is as large as it likes
    if not wide and (not rest or rest.count(0) * _NULS > len(rest)):
        raise UsageError(
            f"{name}: it is no text", hint="a log as text, or packed by gzip, bzip2, xz"
        )
    decoder = codecs.getincrementaldecoder(wide)("replace") if wide else None
    piece = first
    while piece:
        yield decoder.decode(piece).encode(errors="replace") if decoder else piece
        piece = _piece(stream)


def _piece(stream: IO[bytes]) -> bytes:
    """What there is now: a console that is piped in is looked at as it comes."""
    read = getattr(stream, "read1", stream.read)
    found: bytes = read(PIECE)
    return found
