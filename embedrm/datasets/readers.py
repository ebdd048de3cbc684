"""Files into rows with their line numbers: JSON lines, CSV and Parquet, plain or compressed with gzip.

A row that cannot be read is handed on as a :class:`RowError` in its place, so that the caller can count or skip it. A
file that cannot be trusted as a whole (missing, cut short, damaged, of another encoding) raises DataError at once: how
many rows it lost cannot be known, so it is never skipped.
"""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import IO, Any

from embedrm.datasets.columns import ascii_name
from embedrm.datasets.validate import RowError, kind_of, parse_json
from embedrm.errors import DataError

Row = tuple[int, "Mapping[str, Any] | RowError"]

_JSON_LINES = (".jsonl", ".ndjson", ".json")
_TABLES = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")
SUFFIXES = (*_JSON_LINES, *_TABLES, *_PARQUET)
"""The suffixes that are read; text files may have ``.gz`` after theirs."""

_UTF8 = "save the file as UTF-8 (iconv -f OLD -t UTF-8)"


class RowSource(ABC):
    """The rows of one file or of one iterable.

    Attributes
    ----------
    path : str
        The file, or what stands for it in messages.
    columns : list of str or None
        The columns, where the format declares them.
    first_line : int or None
        The line that declares them.
    blank : int
        Blank lines passed over so far; they carry nothing.
    """

    columns: list[str] | None = None
    first_line: int | None = None
    blank = 0

    def __init__(self, path: str) -> None:
        self.path = path

    @abstractmethod
    def rows(self, wanted: Sequence[str] | None = None) -> Iterator[Row]:
        """Yield (line, row); ``wanted`` lets a columnar format read only those columns."""

    def position(self) -> tuple[int, int]:
        """Return (done, total) in a unit of the source's own, for progress; total 0 where it is not known."""
        return 0, 0


class Records(RowSource):
    """Rows that are already mappings; the line of a row is its number, from 1."""

    def __init__(self, records: Iterable[object], name: str) -> None:
        super().__init__(name)
        self.records = records
        self._number = 0

    def rows(self, wanted: Sequence[str] | None = None) -> Iterator[Row]:
        """Yield (number, record)."""
        for number, record in enumerate(self.records, 1):
            self._number = number
            if isinstance(record, Mapping) and all(isinstance(key, str) for key in record):
                yield number, record
            else:
                what = f"a record must be a mapping with names for keys, got {kind_of(record)}"
                yield number, RowError("not an object", what, "give one dict a row")

    def position(self) -> tuple[int, int]:
        """Return the number of records read and, where they can be counted, of all."""
        return self._number, len(self.records) if isinstance(self.records, Sized) else 0


class TextSource(RowSource):
    """A text file, read line by line."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._raw: IO[bytes] | None = None
        self._size = 0

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield (number, bytes) of each line."""
        with _open(self.path) as self._raw:
            self._size = os.fstat(self._raw.fileno()).st_size
            yield from byte_lines(self.path, self._raw)

    def position(self) -> tuple[int, int]:
        """Return the bytes read (packed, where the file is) and the size of the file."""
        return (self._size if self._raw is None or self._raw.closed else self._raw.tell()), self._size


class JsonLines(TextSource):
    """One JSON object a line."""

    def rows(self, wanted: Sequence[str] | None = None) -> Iterator[Row]:
        """Yield (line, object) of every line that is not blank."""
        for number, raw in self.lines():
            if not raw.strip():
                self.blank += 1
                continue
            try:
                value = parse_json(decode(raw))
                if not isinstance(value, dict):
                    raise RowError(
                        "not an object",
                        f"expected one JSON object, got {kind_of(value)}",
                        "write one object a line (jq -c '.[]' turns a JSON array into lines)",
                    )
            except RowError as error:
                yield number, error
            else:
                yield number, value


class Table(TextSource):
    """Comma- or tab-separated values with a header; quoted cells may span lines, and a row's line is its first."""

    def __init__(self, path: str, delimiter: str) -> None:
        super().__init__(path)
        self.delimiter = delimiter
        self._records = self._read()
        for number, record in self._records:
            self.first_line = number
            if isinstance(record, RowError):
                raise DataError(f"the header cannot be read: {record.what}; {record.remedy}.", path, number)
            self.columns = list(record)
            break
        else:
            raise DataError("the file is empty; expected a header and rows.", path)
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            name = ascii_name(twice[0], quote=True)
            raise DataError(f"the header names the column {name} twice; rename one.", path, self.first_line)

    def rows(self, wanted: Sequence[str] | None = None) -> Iterator[Row]:
        """Yield (line, cells by column) of every record that is not blank."""
        header = self.columns or []
        for number, record in self._records:
            if isinstance(record, RowError):
                yield number, record
            elif len(record) != len(header):
                what = f"the row has {len(record)} cells, the header {len(header)}"
                yield number, RowError("wrong cells", what, "quote cells that hold separators or line breaks")
            else:
                yield number, dict(zip(header, record))

    def _read(self) -> Iterator[tuple[int, list[str] | RowError]]:
        broken: dict[int, RowError] = {}

        def lines() -> Iterator[str]:
            for number, raw in self.lines():
                try:
                    yield decode(raw)
                except RowError as error:
                    broken[number] = error
                    yield raw.decode("utf-8", "replace")

        reader = csv.reader(lines(), delimiter=self.delimiter, strict=True)
        while True:
            start = reader.line_num + 1
            try:
                record = _next_record(reader)
            except csv.Error as error:
                if "end of data" in str(error):
                    raise DataError(
                        "the row that begins here has a quote that is never closed, and takes in the rest of the "
                        f"file ({reader.line_num - start + 1} lines); close it, and double quotes inside a cell.",
                        self.path,
                        start,
                    ) from None
                yield start, _broken_row(start, reader.line_num, error)
                continue
            if record is None:
                return
            bad = [broken.pop(number) for number in list(broken) if start <= number <= reader.line_num]
            if bad:
                yield start, bad[0]
            elif not record:
                self.blank += 1
            else:
                yield start, record


def _next_record(reader: Iterator[list[str]]) -> list[str] | None:
    # The csv module limits a cell to 128 KiB, for the whole process at once; passages are longer than that.
    limit = csv.field_size_limit(1 << 30)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(limit)


class ParquetFile(RowSource):
    """A Parquet file; the line of a row is its number, from 1."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._number = 0
        with _Readable(path):
            import pyarrow.parquet as pq

            self._file = pq.ParquetFile(path)
            self.columns = [str(name) for name in self._file.schema_arrow.names]
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise DataError(f"two columns are called {ascii_name(twice[0], quote=True)}; rename one.", path)

    def rows(self, wanted: Sequence[str] | None = None) -> Iterator[Row]:
        """Yield (number, row) with the columns ``wanted``."""
        number = 0
        with _Readable(self.path) as place:
            batches = self._file.iter_batches(batch_size=2048, columns=None if wanted is None else list(wanted))
        while True:
            with _Readable(self.path) as place:
                place.line = number + 1
                batch = next(batches, None)
                rows = [] if batch is None else batch.to_pylist()
            if batch is None:
                return
            for row in rows:
                number += 1
                self._number = number
                yield number, row

    def position(self) -> tuple[int, int]:
        """Return the number of rows read and of all."""
        return self._number, self._file.metadata.num_rows


class _Readable:
    """A context that turns whatever pyarrow raises on a damaged file into DataError."""

    line: int | None = None

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> _Readable:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        import pyarrow as pa

        # pyarrow has no one base class: its errors, and those of turning values into Python's, are these.
        damage = (pa.ArrowException, OSError, ValueError, OverflowError, KeyError, TypeError, MemoryError)
        if isinstance(error, damage) and not isinstance(error, DataError):
            first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise DataError(
                f"not a readable Parquet file ({ascii_name(first)}); write it again from its source.",
                self.path,
                self.line,
            ) from None


def open_source(path: str | Path) -> RowSource:
    """Return the rows of a file, by its suffix.

    Raises
    ------
    DataError
        Where the file is missing, a folder, unreadable, or of an unknown suffix.
    """
    place = str(path)
    if Path(path).is_dir():
        raise DataError(_folder(Path(path)), place)
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    last = suffixes[-1] if suffixes else ""
    inner = suffixes[-2] if last == ".gz" and len(suffixes) > 1 else last
    if inner not in SUFFIXES or (last == ".gz" and inner in _PARQUET):
        known = ", ".join(SUFFIXES)
        raise DataError(
            f"unknown kind of file {last or 'without a suffix'!r}; expected one of {known} (text with .gz).", place
        )
    with _open(place):
        pass
    if inner in _JSON_LINES:
        return JsonLines(place)
    return Table(place, _TABLES[inner]) if inner in _TABLES else ParquetFile(place)


def _folder(path: Path) -> str:
    """Say what to give instead of a folder."""
    try:
        names = sorted(file.name for file in path.iterdir() if not file.name.startswith("."))
    except OSError:
        return "this is a folder that cannot be listed; give the files in it."
    here = [name for name in names if name.lower().removesuffix(".gz").endswith(SUFFIXES)]
    if not here:
        return f"this is a folder without a file of preferences ({', '.join(SUFFIXES)}); give a file."
    shown = ", ".join(ascii_name(name) for name in here[:3])
    return f"this is a folder; give the files in it, such as {shown} ({len(here)} there)."


def _open(path: str) -> IO[bytes]:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise DataError("there is no such file; check the path.", path) from None
    except IsADirectoryError:
        raise DataError(_folder(Path(path)), path) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"the file cannot be opened ({reason}); check the path and its rights.", path) from None


def byte_lines(path: str, raw: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield (number, bytes) of each line of a text file, unpacked, without a UTF-8 byte order mark."""
    number = 0
    packed = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    if path.lower().endswith(".gz") and not packed:
        raise DataError("the name ends in .gz but the content is not gzip; rename it or pack it again.", path, 1)
    stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
    try:
        for line in stream:
            number += 1
            if number == 1:
                line = _without_mark(line, path)
            yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"the gzip data are damaged or cut short after line {number} ({error}); fetch or pack the file again.",
            path,
            number + 1,
        ) from None
    except OSError as error:
        raise DataError(f"reading failed ({error.strerror or error}); check the disk.", path, number + 1) from None


def _without_mark(line: bytes, path: str) -> bytes:
    if line.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in line[:4]:
        raise DataError(
            f"the file is UTF-16 or UTF-32 (or not text); {_UTF8.replace('OLD', 'UTF-16')}.",
            path,
            1,
        )
    return line.removeprefix(b"\xef\xbb\xbf")


def decode(raw: bytes) -> str:
    """Return the text of one line, or raise RowError naming the first byte that is not UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(
            "wrong encoding", f"byte {error.start + 1} of the line (0x{raw[error.start]:02x}) is not UTF-8", _UTF8
        ) from None


def _broken_row(start: int, end: int, error: csv.Error) -> RowError:
    lines = f"lines {start} to {end}" if end > start else "the line"
    return RowError(
        "broken CSV", f"{lines} cannot be read as a row ({error})", "quote the cell and double the quotes inside it"
    )
