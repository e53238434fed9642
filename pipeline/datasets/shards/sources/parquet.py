"""Parquet files with a column of images: bytes, or Hugging Face's structs of bytes and path."""

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.datasets import _image_layout
from pipeline.datasets.shards import sources
from pipeline.datasets.shards.sources import parts, tables
from pipeline.runtime import errors, files

CHUNK = 64  # rows that are read at once


class Parquet(NamedTuple):
    """The rows of parquet files."""

    groups: Mapping[str, Sequence[tuple[str, int, int]]]  # by part: path, row group, rows
    columns: tables.Columns
    texts: Mapping[str, Mapping[str, int]]  # class indices by text, of columns of texts
    shape: None = None

    @property
    def parts(self) -> Mapping[str, int]:
        """The numbers of rows by part."""
        return {part: sum(rows for _, _, rows in found) for part, found in self.groups.items()}

    @property
    def entries(self) -> Mapping[str, Any]:
        """The label and the factors."""
        return self.columns.entries

    @property
    def identity(self) -> str:
        """The names of the files, their row groups, and the columns."""
        named = {
            part: [(Path(path).name, group, rows) for path, group, rows in found]
            for part, found in self.groups.items()
        }
        return files.digest([named, self.columns])

    def rows(self, part: str, first: int, stop: int) -> Iterator[sources.Row]:
        """Yields the images with their label and factors."""
        library, begin = _library(), 0
        for path, group, rows in self.groups[part]:
            if begin < stop and begin + rows > first:
                with library.ParquetFile(path) as file:
                    yield from self._rows(file, path, group, begin, first, stop)
            begin += rows

    def _rows(
        self, file: Any, path: str, group: int, begin: int, first: int, stop: int
    ) -> Iterator[sources.Row]:
        number = begin
        names = self.columns.names
        for batch in file.iter_batches(CHUNK, row_groups=[group], columns=names):
            if number + batch.num_rows <= first or number >= stop:
                number += batch.num_rows
                continue
            for row in batch.to_pylist():
                if first <= number < stop:
                    yield self._row(row, f"{Path(path).name} {number - begin}")
                number += 1

    def _row(self, row: dict[str, Any], name: str) -> sources.Row:
        content = row[self.columns.image]
        if isinstance(content, dict):
            content = content.get("bytes")
        for column, numbers in self.texts.items():
            row[column] = numbers[row[column]]
        entries, reason = self.columns.row(row), "" if content else "no content"
        return sources.Row(name, content or b"", entries, reason)


def opened(paths: Sequence[Path], shown: str) -> Parquet:
    """Reads the columns and row groups of parquet files, which are in natural order.

    Raises:
        InputError: the library is missing, a file is damaged, or there is no column of images.
    """
    library = _library()
    paths = sorted(paths, key=lambda path: _image_layout.natural(path.name))
    try:
        opened_files = {path.name: library.ParquetFile(path) for path in paths}
    except Exception as error:  # the library raises many kinds of errors on damaged files
        raise errors.InputError(f"{shown} cannot be read: {error}") from error
    schemas = [file.schema_arrow for file in opened_files.values()]
    if any(schema != schemas[0] for schema in schemas):
        raise errors.InputError(f"{shown} has files with different columns: give those of one kind")
    chosen = parts.chosen(opened_files, shown)
    groups = {
        part: [
            (str(paths[0].parent / name), group, file.metadata.row_group(group).num_rows)
            for name in names
            for file in [opened_files[name]]
            for group in range(file.num_row_groups)
        ]
        for part, names in chosen.items()
    }
    columns, texts = _columns(schemas[0], opened_files, shown)
    return Parquet(groups, columns, texts)


def _columns(
    schema: Any, opened_files: Mapping[str, Any], shown: str
) -> tuple[tables.Columns, dict[str, dict[str, int]]]:
    types = importlib.import_module("pyarrow").types
    features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = features.get("info", {}).get("features", {})
    images, classes, switches, numbers, texts = [], {}, [], [], {}
    for field in schema:
        name, kind = field.name, field.type
        if types.is_binary(kind) or types.is_large_binary(kind) or (
            types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        ):  # fmt: skip
            images.append(name)
        elif names := (features.get(name) or {}).get("names"):
            classes[name] = tuple(names)
        elif types.is_boolean(kind):
            switches.append(name)
        elif types.is_integer(kind):
            numbers.append(name)
        elif name.lower() in tables.LABELS and (types.is_string(kind) or types.is_dictionary(kind)):
            found = {text for file in opened_files.values()
                     for text in file.read(columns=[name])[name].unique().to_pylist()}  # fmt: skip
            classes[name] = tuple(sorted(found, key=_image_layout.natural))
            texts[name] = {text: k for k, text in enumerate(classes[name])}
    return tables.columns(images, classes, switches, numbers, shown), texts


def _library() -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise errors.InputError(
            "a parquet file needs the package pyarrow: pip install 'vae-pipeline[parquet]', or "
            "make setup EXTRAS=parquet"
        ) from None
