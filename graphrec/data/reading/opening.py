"""Files as streams of UTF-8 text, whatever their compression and name."""

from __future__ import annotations

import codecs
import lzma
import zlib
from typing import Any, Protocol

import pyarrow as pa

from graphrec.data.errors import DataError
from graphrec.data.reading.sources import SourceFile

COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ\x00": "xz",
}
"""First bytes of compressed files, and their compression."""

UNREADABLE_FORMATS = {
    b"PK\x03\x04": "a zip archive or a spreadsheet; unpack it, or save the sheet as CSV",
    b"PK\x05\x06": "an empty zip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"Rar!\x1a\x07": "a rar archive; unpack it",
    b"\x1f\x9d": "compressed by `compress`; uncompress it",
    b"\x02\x21\x4c\x18": "an old kind of lz4; decompress it",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet; save the sheet as CSV",
    b"SQLite format 3\x00": "an SQLite database; export the table as CSV",
    b"ARROW1": "an Arrow file; write the table as Parquet",
    b"FEA1": "a Feather file; write the table as Parquet",
    b"ORC": "an ORC file; write the table as Parquet",
    b"Obj\x01": "an Avro file; write the table as Parquet",
    b"\x89HDF": "an HDF5 file; write the table as Parquet",
    b"\x93NUMPY": "a NumPy array; pass its columns to EventLog.from_arrays",
    b"%PDF-": "a PDF document; save the table as CSV",
}
"""First bytes of files that cannot be read, with their format and advice."""

PARQUET = (b"PAR1", b"PARE")

ENCODINGS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Byte order marks and their encodings; UTF-32 comes first, because its marks begin with UTF-16's."""

SIGNATURE_BYTES = 512


class ByteStream(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes; none at the end."""


def is_parquet(file: SourceFile) -> bool:
    """Tell by its first bytes whether a file is Parquet."""
    return _read(_open(file), len(PARQUET[0]), file.name, "").startswith(PARQUET)


class _Unxz:
    """The decompressed bytes of an xz file, which may hold several streams."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._decompressor = lzma.LZMADecompressor()
        self._left = b""

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes; none at the end."""
        while True:
            if self._decompressor.eof:
                self._left = (self._decompressor.unused_data or self._stream.read(size)).lstrip(b"\0")
                if not self._left:
                    return b""
                self._decompressor = lzma.LZMADecompressor()
            elif self._decompressor.needs_input and not self._left:
                self._left = self._stream.read(size)
                if not self._left:
                    raise EOFError("it ends early")
            out = self._decompressor.decompress(self._left, size)
            self._left = b""
            if out:
                return out


class TextStream:
    """The text of a file as UTF-8 bytes, without a byte order mark.

    Args:
        file: compressed or not, by its first bytes; UTF-8, or UTF-16 and UTF-32 with a byte order mark.

    Raises:
        DataError: the file has a format that cannot be read, or is damaged; also while reading.
    """

    def __init__(self, file: SourceFile) -> None:
        self._name = file.name
        self._stream: Any = _open(file)
        self._compression = ""
        head = self._raw(SIGNATURE_BYTES)
        kind = next((kind for magic, kind in COMPRESSIONS.items() if head.startswith(magic)), None)
        if kind == "bz2" and head[4:10] not in (b"1AY&SY", b"\x17rE8P\x90"):  # a name may begin with BZh
            kind = None
        if kind is not None:
            self._compression = kind
            raw = _open(file)
            self._stream = _Unxz(raw) if kind == "xz" else pa.CompressedInputStream(raw, kind)
            head = self._raw(SIGNATURE_BYTES)
            if head.startswith((*COMPRESSIONS, *PARQUET)) and not head.startswith(b"BZh"):
                raise DataError(f"{self._name}: is compressed around another file; decompress it first")
        for magic, fault in UNREADABLE_FORMATS.items():
            if head.startswith(magic):
                raise DataError(f"{self._name}: is {fault}")
        if head[257:262] == b"ustar":
            raise DataError(f"{self._name}: is a tar archive; unpack it")
        mark = next((mark for mark in ENCODINGS if head.startswith(mark)), b"")
        encoding = ENCODINGS.get(mark, "utf-8")
        self._decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
        self._encoding = encoding
        self._ready = self._utf8(head[len(mark) :], final=False)

    def read(self, size: int) -> bytes:
        """Read about `size` bytes; none at the end."""
        while not self._ready:
            block = self._raw(size)
            self._ready = self._utf8(block, final=not block)
            if not block:
                break
        ready, self._ready = self._ready, b""
        return ready

    def _raw(self, size: int) -> bytes:
        return _read(self._stream, size, self._name, self._compression)

    def _utf8(self, block: bytes, *, final: bool) -> bytes:
        if self._decoder is None:
            return block
        try:
            return self._decoder.decode(block, final).encode()
        except UnicodeError as error:
            raise DataError(f"{self._name}: not valid {self._encoding.upper()} ({error.args[-1]})") from None


def _open(file: SourceFile) -> pa.NativeFile:
    try:
        return file.filesystem.open_input_stream(file.path, compression=None)
    except FileNotFoundError:
        raise FileNotFoundError(f"no such file: {file.name}") from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file.name}: cannot be opened ({error})") from None


def _read(stream: ByteStream, size: int, name: str, compression: str) -> bytes:
    try:
        return stream.read(size)
    except (OSError, EOFError, pa.ArrowException, lzma.LZMAError, zlib.error) as error:
        if compression:
            raise DataError(
                f"{name}: the {compression} stream is truncated or damaged ({error}); fetch the file again"
            ) from None
        raise DataError(f"{name}: cannot be read ({error})") from None
