"""Tables for spreadsheets, and what spreadsheets make of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from ripu.annotate.codecs.reading import MalformedError

MOST_CELL = 1 << 24
_FORMULA = tuple("=+-@＝＋－＠'\t\r\n")


def table_bytes(rows: Iterable[Sequence[str]]) -> bytes:
    """Return a CSV table in UTF-8 with a byte order mark; none of its cells is taken for a formula.

    A leading apostrophe marks a cell as text; :func:`plain_cell` removes it.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in row] for row in rows)
    return text.getvalue().encode("utf-8-sig", "backslashreplace")


def plain_cell(cell: str) -> str:
    """Return a cell without spaces around it and without the apostrophe that marks it as text."""
    return cell.strip().removeprefix("'")


def read_table(content: bytes, columns: Iterable[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows below the header of a table, whatever separates its cells, with their numbers from 2.

    Raises:
        MalformedError: It is not a table in UTF-8 or UTF-16, or its first line does not name the columns.
    """
    wanted = set(columns)
    limit = csv.field_size_limit(MOST_CELL)
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        for delimiter in (",", ";", "\t"):
            head, *rows = [*csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)] or [[]]
            if wanted <= {plain_cell(name) for name in head}:
                names = [plain_cell(name) for name in head]
                return [(number, dict(zip(names, row, strict=False))) for number, row in enumerate(rows, 2)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise MalformedError(f"not a table in UTF-8 ({error})", 'save it as "CSV UTF-8"') from error
    finally:
        csv.field_size_limit(limit)
    raise MalformedError(
        f"the first line does not name the columns {' and '.join(sorted(wanted))}", "keep the first line as exported"
    )
