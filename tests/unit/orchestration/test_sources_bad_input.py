"""Files as they come: other encodings, marks, torn archives, wrong delimiters. All is read that can be, nothing crashes."""

from __future__ import annotations

import gzip
import json
import pathlib
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources_shop import YEAR, events, one, read, shop

from contracts.retailer import Feed

ROW = "{id},2024-03-01T10:00:00Z,search,{word}\n"
HEADER = "id,at,what,words\n"


def feed(path: object, **more: Any) -> Feed:
    fields: dict[str, Any] = {"event_id": "id", "occurred_at": "at", "action": "what", "query": "words"}
    base: dict[str, Any] = {"files": str(path), "fields": fields, "constants": {"channel": "web"}}
    return Feed(**(base | more))


def queries(
    tmp_path: pathlib.Path, content: bytes, name: str = "a.csv", **more: Any
) -> tuple[list[str], Any]:
    path = tmp_path / name
    path.write_bytes(content)
    rows, part = one(tmp_path, feed(path, **more))
    return [row["query"] for row in rows], part


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1"]
)
def test_encodings_are_found_out(tmp_path: pathlib.Path, encoding: str) -> None:
    text = HEADER + "".join(
        ROW.format(id=n, word="Häkelmütze à 5 €" if encoding != "latin-1" else "Mütze") for n in range(5)
    )
    found, part = queries(tmp_path, text.encode(encoding))
    assert set(found) == {"Häkelmütze à 5 €" if encoding != "latin-1" else "Mütze"}
    assert len(found) == 5
    assert part.broken == 0


@pytest.mark.parametrize(("most", "few"), [("utf-8", "cp1252"), ("cp1252", "utf-8")])
def test_lines_of_two_encodings_are_all_read(tmp_path: pathlib.Path, most: str, few: str) -> None:
    lines = [HEADER.encode(), *(ROW.format(id=n, word="Mütze").encode(most) for n in range(6))]
    lines.append(ROW.format(id=7, word="Köln").encode(few))
    found, part = queries(tmp_path, b"".join(lines))
    assert found == ["Mütze"] * 6 + ["Köln"]
    assert part.encoding == most
    assert any("mixed encodings: 1 " in note for note in part.notes)


def test_an_encoding_that_is_given_wins(tmp_path: pathlib.Path) -> None:
    found, _ = queries(
        tmp_path, (HEADER + ROW.format(id=1, word="Привет")).encode("koi8-r"), encoding="koi8-r"
    )
    assert found == ["Привет"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found_out(tmp_path: pathlib.Path, delimiter: str) -> None:
    text = (HEADER + ROW.format(id=1, word="hat")).replace(",", delimiter)
    found, part = queries(tmp_path, text.encode())
    assert (found, part.delimiter) == (["hat"], delimiter)


def test_quotes_line_breaks_and_columns_without_a_name(tmp_path: pathlib.Path) -> None:
    text = 'id,at,what,words,\r\n1,2024-03-01T10:00:00Z,search,"a ""b"", c\r\nd",x\r\n2,2024-03-01T10:00:00Z,search,e,\r\n'
    found, part = queries(tmp_path, text.encode())
    assert [word.replace("\r", "") for word in found] == ['a "b", c\nd', "e"]
    assert part.columns[-1] == "column_5"


def test_lines_of_the_wrong_width_are_kept_with_their_number(tmp_path: pathlib.Path) -> None:
    text = (
        HEADER
        + ROW.format(id=1, word="a")
        + "2,too few\n"
        + ROW.format(id=3, word="b")
        + "4,5,6,7,8,9\n"
        + "5,never,search,c\n"
    )
    found, part = queries(tmp_path, text.encode())
    assert found == ["a", "b"]
    assert part.reasons == {
        "line: too few fields": 1, "line: too many fields": 1, "occurred_at: not a time that can be read": 1,
    }  # fmt: skip
    assert [(example.line, example.raw[:9]) for example in part.examples] == [
        (3, "2,too few"), (5, "4,5,6,7,8"), (6, '{"id":"5"'),
    ]  # fmt: skip


def test_a_quote_that_is_never_closed_costs_no_other_row(tmp_path: pathlib.Path) -> None:
    text = HEADER + ROW.format(id=1, word="a") + '2,2024-03-01T10:00:00Z,search,"open\n'
    found, part = queries(tmp_path, text.encode())
    assert found == ["a"]
    assert part.broken == 1


def test_a_torn_gzip_gives_what_came_before_the_tear(tmp_path: pathlib.Path) -> None:
    rows = [
        json.dumps(
            {"id": n, "at": "2024-03-01T10:00:00Z", "what": "search", "words": f"w{n}{'x' * (n % 50)}"}
        )
        for n in range(3000)
    ]
    whole = gzip.compress("\n".join(rows).encode(), mtime=0)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(whole)
    assert len(one(tmp_path / "whole", feed(path))[0]) == 3000
    path.write_bytes(whole[: len(whole) // 2])
    found, part = one(tmp_path / "torn", feed(path))
    assert 500 < len(found) < 3000
    assert any("gzip breaks off" in note for note in part.notes)
    assert part.good + part.broken >= len(found)


def test_a_torn_array_and_a_broken_line_keep_the_rest(tmp_path: pathlib.Path) -> None:
    rows = [{"id": n, "at": "2024-03-01T10:00:00Z", "what": "search", "words": "a\nb"} for n in range(4)]
    array = json.dumps(rows, indent=1)
    found, part = queries(tmp_path, array[:-40].encode(), "a.json")
    assert (len(found), part.broken) == (3, 1)
    assert any("array is damaged" in note for note in part.notes)
    lines = "\n".join([json.dumps(rows[0]), '{"id": 1, "at', "", json.dumps(rows[1])])
    source = shop(tmp_path / "lines", web=feed(tmp_path / "b.jsonl"))
    (tmp_path / "b.jsonl").write_text(lines)
    part = read(source)[0]
    assert (part.good, part.broken) == (2, 1)
    assert [(one.line, one.raw) for one in part.examples] == [(2, '{"id": 1, "at')]


def test_a_torn_parquet_file_is_told_and_the_others_are_read(tmp_path: pathlib.Path) -> None:
    for name in ("a", "b"):
        row = {"id": name, "at": "2024-03-01T10:00:00Z", "what": "search", "words": name}
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"{name}.parquet")
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:-30])
    source = shop(tmp_path, web=feed(tmp_path / "*.parquet"))
    parts = {pathlib.Path(part.origin).stem: part for part in read(source)}
    assert parts["a"].error is None
    assert "no whole Parquet file" in str(parts["b"].error)
    assert [row["query"] for row in events(source)] == ["a"]
    (tmp_path / "b.parquet").write_bytes(whole)
    assert [row["query"] for row in events(source)] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "holds no row"),
        (b"PK\x03\x04rest", "zip archive or a workbook"),
        (b"\x28\xb5\x2f\xfdrest", "zstd"),
        (bytes(range(256)) * 20, "binary data"),
        (b"PAR1 and nothing", "no whole Parquet file"),
    ],
)
def test_what_is_no_table_is_told(tmp_path: pathlib.Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    part = read(shop(tmp_path, web=feed(tmp_path / "a.csv")))[0]
    assert message in str(part.error)
    assert (part.good, part.broken) == (0, 1)


def test_a_header_alone_is_an_empty_file_and_no_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_text(HEADER)
    part = read(shop(tmp_path, web=feed(tmp_path / "a.csv")))[0]
    assert (part.error, part.rows) == (None, 0)


def test_a_schema_that_changes_between_two_files(tmp_path: pathlib.Path) -> None:
    (tmp_path / "1.csv").write_text(HEADER + ROW.format(id=1, word="a"))
    (tmp_path / "2.csv").write_text("words,what,extra,at,id\nb,search,new,2024-03-02T10:00:00Z,2\n")
    (tmp_path / "3.csv").write_text("id,when,what,words\n3,2024-03-03T10:00:00Z,search,c\n")
    source = shop(tmp_path, web=feed(tmp_path / "*.csv"))
    parts = {pathlib.Path(part.origin).stem: part for part in read(source)}
    assert parts["2"].unused == ("extra",)
    assert "mapping.web.fields.occurred_at is 'at', which is not there" in str(parts["3"].error)
    assert "when" in str(parts["3"].error)
    rows = events(source)
    assert [(row["query"], json.loads(row["detail"])) for row in rows] == [("a", {}), ("b", {"extra": "new"})]
    both: dict[str, Any] = {
        "event_id": "id",
        "occurred_at": ("at", "when"),
        "action": "what",
        "query": "words",
    }
    wiser = shop(tmp_path, web=feed(tmp_path / "*.csv", fields=both))
    assert [row["query"] for row in events(wiser)] == ["a", "b", "c"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_line_ends_of_several_systems_in_one_file(tmp_path: pathlib.Path, suffix: str) -> None:
    if suffix == "csv":
        lines = [HEADER.strip(), *(ROW.format(id=n, word=f'"w\r\n{n}"').strip() for n in range(6))]
    else:
        base = {"at": "2024-03-01T10:00:00Z", "what": "search"}
        lines = [json.dumps({**base, "id": n, "words": f"w\n{n}"}) for n in range(6)]
    text = "".join(line + ("\r\n" if number % 3 else "\n") for number, line in enumerate(lines))
    found, part = queries(tmp_path, text.encode(), f"a.{suffix}")
    assert found == [f"w\n{n}" for n in range(6)]
    assert part.broken == 0


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system(tmp_path: pathlib.Path, newline: str) -> None:
    text = HEADER + ROW.format(id=1, word="a") + ROW.format(id=2, word="b")
    assert queries(tmp_path, text.replace("\n", newline).encode())[0] == ["a", "b"]
    base = {"at": "2024-03-01T10:00:00Z", "what": "search"}
    documents = "".join(json.dumps({**base, "id": word, "words": word}) + newline for word in ("a", "b"))
    source = shop(tmp_path / "documents", web=feed(tmp_path / "b.jsonl"))
    (tmp_path / "b.jsonl").write_bytes(documents.encode())
    assert [row["query"] for row in events(source)] == ["a", "b"]


def test_a_spreadsheet_that_names_its_delimiter(tmp_path: pathlib.Path) -> None:
    text = (
        ("sep=;\n" + HEADER + ROW.format(id=1, word="a") + "2,too few\n")
        .replace(",", ";")
        .replace("\n", "\r\n")
    )
    found, part = queries(tmp_path, text.encode())
    assert (found, part.delimiter) == (["a"], ";")
    assert [example.line for example in part.examples] == [4]


def test_lines_that_are_no_text_for_json_keep_their_number(tmp_path: pathlib.Path) -> None:
    row = json.dumps({"id": 1, "at": "2024-03-01T10:00:00Z", "what": "search", "words": "a\\x01b"})
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([row, '{"a": \x01 1}', "{}", row.replace('"id": 1', '"id": 2')]) + "\n")
    rows, part = one(tmp_path, feed(path))
    assert [row["event_id"] for row in rows] == ["web:1", "web:2"]
    assert [example.line for example in part.examples] == [2, 3]


@pytest.mark.parametrize("seed", range(4))
def test_no_line_of_a_ruined_file_is_lost(tmp_path: pathlib.Path, seed: int) -> None:
    draw = random.Random(seed)
    ends = [
        "hat",
        'a ""b"" c',
        '"x, y"',
        'a"b',
        '"x" y',
        '"never closed',
        "too,many,fields",
        "\u00e9",
        "\tz ",
    ]
    lines = [HEADER.strip().encode()]
    for number in range(60):
        start = f"line{number}end,2024-03-01T10:00:00Z,search"
        line = start if draw.random() < 0.1 else f"{start},{draw.choice(ends)}"
        lines.append(line.encode(draw.choice(["utf-8", "latin-1"])))
    path = tmp_path / "a.csv"
    path.write_bytes(draw.choice([b"\n", b"\r\n"]).join(lines))
    source = shop(tmp_path, web=feed(path))
    part = read(source)[0]
    assert part.error is None
    found = json.dumps(source.answer(YEAR).read_all().to_pylist(), default=str)
    assert [number for number in range(60) if f"line{number}end" not in found] == []
