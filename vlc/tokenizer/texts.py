"""The texts in the Arrow files of a folder, record batch by record batch."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vlc.common.errors import MissingFile, UserError
from vlc.common.terminal import progress
from vlc.data.catalog import CATALOG
from vlc.data.ipc import in_plain_layout, is_any_list, record_batches

_FIELDS = ("answers", "options", "given_answer", "caption", "dialogue", "second_text")  # that hold texts
# Every column of the catalogue that holds texts, but for those that repeat texts of other rows.
TEXT_COLUMNS = frozenset(spec.text for spec in CATALOG.values()) | {
    spec.fields[name].name for spec in CATALOG.values() for name in _FIELDS if name in spec.fields
}
LANGUAGES = "lang"  # the column that says in which language each text is


@dataclass(frozen=True)
class Texts:
    """The texts of some columns of Arrow files. Nothing is kept in memory but the record batch that is read.

    Raises UserError where there is no such file, no such column, or a damaged file.
    """

    folder: Path
    columns: Collection[str] = TEXT_COLUMNS

    def __post_init__(self) -> None:
        columns = [self._names(schema) for _, schema, _ in self._tables()]
        if not any(columns):
            raise UserError(
                f"No arrow file in {self.folder} has a column of texts {' or '.join(sorted(self.columns))}: name the "
                "columns with --columns"
            )

    def by_language(self, title: str) -> Iterator[tuple[str, list[str]]]:
        """The language of some texts ("" where the file names none), and the texts. title: of the progress bar."""
        num_rows = sum(batch.num_rows for _, _, batches in self._tables() for batch in batches)
        with progress(title, num_rows) as advance:
            for path, schema, batches in self._tables():
                for batch in batches:
                    try:
                        yield from _texts(batch, self._names(schema))
                    except (pa.ArrowException, ValueError) as error:  # pyarrow raises these on damaged files
                        raise UserError(f"{path} is damaged ({error}): write it again") from error
                    advance(batch.num_rows)

    def all(self, title: str) -> Iterator[str]:
        for _, texts in self.by_language(title):
            yield from texts

    def _names(self, schema: pa.Schema) -> list[str]:
        return [name for name in schema.names if name in self.columns and _holds_strings(schema.field(name).type)]

    def _tables(self) -> Iterator[tuple[Path, pa.Schema, list[pa.RecordBatch]]]:
        paths = sorted(self.folder.glob("*.arrow"))
        if not paths:
            raise MissingFile(f"{self.folder} has no arrow files: write some with python -m write_arrow, see DATA.md")
        for path in paths:
            try:
                yield path, *record_batches(path)
            except (pa.ArrowException, OSError, ValueError) as error:  # pyarrow raises these on damaged files
                raise UserError(f"{path} is damaged or not an Arrow IPC file ({error}): write it again") from error


def _holds_strings(kind: pa.DataType) -> bool:
    while is_any_list(kind) or pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _texts(batch: pa.RecordBatch, names: Collection[str]) -> Iterator[tuple[str, list[str]]]:
    languages = _column(batch, LANGUAGES) if LANGUAGES in batch.schema.names else None
    for name in names:
        found = _column(batch, name)
        own = languages if languages is not None and _aligned(found, languages) else None
        texts = _flat(found)
        if own is None:
            yield "", texts.drop_null().to_pylist()
            continue
        by_language: dict[str, list[str]] = defaultdict(list)
        for language, text in zip(_flat(own).to_pylist(), texts.to_pylist(), strict=True):
            if text is not None:
                by_language[language or ""].append(text)
        yield from by_language.items()


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    column = batch.column(name)
    column.validate(full=True)
    return in_plain_layout(column)


def _flat(column: pa.Array) -> pa.Array:
    while is_any_list(column.type):
        column = column.flatten()
    return column


def _aligned(texts: pa.Array, languages: pa.Array) -> bool:
    """Whether each text has a language."""
    if not is_any_list(texts.type) or not is_any_list(languages.type):
        return is_any_list(texts.type) == is_any_list(languages.type)
    same_depth = is_any_list(texts.type.value_type) == is_any_list(languages.type.value_type)
    return same_depth and pc.list_value_length(texts).equals(pc.list_value_length(languages))
