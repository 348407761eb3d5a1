"""Text files of every kind and in every state: which line is bad, why, and that the rest is read."""

import csv
import gzip
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from prefroute.data import Battles, ReadReport, read_battles
from prefroute.errors import ConfigurationError, DataError

HEADER = "prompt,model_a,model_b,winner\n"


def read(path: Path, content: str | bytes, **options: Any) -> tuple[Battles, list[tuple[int, str]]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    report = ReadReport()
    battles = read_battles(path, on_bad_row="skip", report=report, **options)
    assert report.rows_kept == len(battles)
    assert report.rows_read == report.rows_kept + report.rows_bad
    assert report.rows_bad == sum(report.reasons.values())
    return battles, [(row.line, row.reason) for row in report.bad_rows]


def damage(path: Path, content: str | bytes) -> tuple[str, ReadReport]:
    """What is said of a file that is refused whatever is to be done about bad rows, and what was counted."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    report = ReadReport()
    with pytest.raises(DataError) as skipping:
        read_battles(path, on_bad_row="skip", report=report)
    with pytest.raises(DataError) as raising:
        read_battles(path)
    assert str(skipping.value) == str(raising.value)
    assert report.rows_read == report.rows_kept + report.rows_bad
    assert report.rows_bad == sum(report.reasons.values())
    return str(skipping.value), report


def line(**fields: Any) -> str:
    return json.dumps({"prompt": "q", "model_a": "x", "model_b": "y", "outcome": 1.0} | fields) + "\n"


def test_lines_are_counted_through_quoted_and_blank_ones(tmp_path: Path) -> None:
    content = HEADER + '"a\nb\nc",x,y,model_a\n\n"q",x,y,foo\n"say ""hi""",x,y,tie\n"r\ns",x,x,tie\n'
    battles, bad = read(tmp_path / "a.csv", content)
    assert list(battles.prompts) == ["a\nb\nc", 'say "hi"']
    assert battles.outcomes.tolist() == [1.0, 0.5]
    assert [number for number, _ in bad] == [6, 8]
    assert "'foo'" in bad[0][1]
    assert "model_a or a, model_b or b, tie" in bad[0][1]
    assert "both 'x'" in bad[1][1]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_every_line_ending_is_read(tmp_path: Path, ending: str) -> None:
    content = (HEADER + "q,x,y,tie\n\nr,x,y,lost\n").replace("\n", ending)
    battles, bad = read(tmp_path / "a.csv", content)
    assert battles.prompts == ("q",)
    assert [number for number, _ in bad] == [4]


@pytest.mark.parametrize("content", [HEADER + "q,x,y,tie\n", line(outcome=0.5), f"[{line(outcome=0.5)}]"])
def test_a_byte_order_mark_is_passed_over(tmp_path: Path, content: str) -> None:
    assert read(tmp_path / "a.txt", b"\xef\xbb\xbf" + content.encode())[0].prompts == ("q",)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.unknown", "noending"])
@pytest.mark.parametrize(
    "content", [HEADER.replace(",", ";") + "q;x;y;tie\n", HEADER.replace(",", "\t") + "q\tx\ty\ttie\n"]
)
def test_kind_and_separator_are_told_by_the_content(tmp_path: Path, name: str, content: str) -> None:
    data = gzip.compress(content.encode()) if name.endswith("gz") else content.encode()
    battles, _ = read(tmp_path / name, data)
    assert battles.sources == (name.partition(".")[0] if "unknown" not in name else name,)


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("mark", [";", ",", "\t", "|"])
@pytest.mark.parametrize("first", ["sep={}\r\n", "SEP={}\n", '"sep={}"\r\n'])
def test_the_line_of_excel_that_names_the_separator(tmp_path: Path, bom: bytes, mark: str, first: str) -> None:
    rows = "q1,x,y,tie\nq2,x,x,tie\n".replace(",", mark)
    content = first.format(mark) + HEADER.replace(",", mark) + rows
    battles, bad = read(tmp_path / "a.csv", bom + content.encode())
    assert battles.prompts == ("q1",)
    assert [number for number, _ in bad] == [4]


def test_huge_cells_are_read_and_the_limit_of_the_csv_module_is_left_alone(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    battles, _ = read(tmp_path / "a.csv", HEADER + "q" * (before + 1) + ",x,y,tie\n")
    assert len(battles.prompts[0]) == before + 1
    assert csv.field_size_limit() == before


def test_threads_that_read_at_once_leave_the_limit_alone(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = tmp_path / "a.csv"
    path.write_text(HEADER + ("q" * (before + 1) + ",x,y,tie\n") * 8)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(read_battles(path)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [8] * 8
    assert csv.field_size_limit() == before


def test_a_quote_that_is_never_closed_is_told_with_what_it_swallows(tmp_path: Path) -> None:
    content = HEADER + 'ok,x,y,tie\n"open,x,y,tie\nz,x,y,tie\nz,x,y,tie\n'
    message, report = damage(tmp_path / "a.csv", content)
    assert "damaged from line 3 on: lines 3 to 5 are lost, up to the end: a quote is opened and never" in message
    assert "Correct it there, fetch the file again, or cut it off there" in message
    assert (report.rows_read, report.rows_kept, report.rows_bad) == (4, 1, 3)
    assert report.reasons == {"quote never closed": 3}


def rows_of(count: int, **odd: str) -> str:
    return HEADER + "".join(odd.get(f"row{n}", f"question {n},x,y,tie\n") for n in range(count))


def test_lines_between_two_stray_quotes_are_counted_and_named(tmp_path: Path) -> None:
    content = rows_of(1000, row9='"question 9,x,y,tie\n', row898='"question, 898",x,y,tie\n')
    message, report = damage(tmp_path / "a.csv", content)
    assert "damaged from line 11 on: lines 11 to 900 are lost: a quote is opened in line 11" in message
    assert (report.rows_kept, report.rows_bad, report.rows_read) == (9, 890, 899)
    assert report.reasons == {"lines lost within quotes": 890}


def test_rows_within_one_cell_are_not_taken_for_a_prompt(tmp_path: Path) -> None:
    content = rows_of(2000, row9='"question 9,x,y,tie\n', row898='question 898 says ",x,y,tie\n')
    path = tmp_path / "a.csv"
    battles, bad = read(path, content)
    assert len(battles) == 1110
    assert [number for number, _ in bad] == [11]
    assert bad[0][1].startswith("lines 11 to 900 are lost: one cell holds 888 lines that would each be a row of 4")
    with pytest.raises(DataError, match="lines 11 to 900 are lost"):
        read_battles(path)
    report = ReadReport()
    read_battles(path, on_bad_row="skip", report=report)
    assert (report.rows_bad, report.rows_read) == (890, 2000)


@pytest.mark.parametrize(
    "prompt",
    [
        "Who?\n" + "a line of text\n" * 50,
        "Sum:\n" + "1,2,3,4\n" * 4 + "end",
        "Sum:\n" + "1,2,3\n" * 50,
        "Code:\n" + "f(a, b, c, d)\nreturn 1\nend\n" * 20,
    ],
)
def test_prompts_of_many_lines_are_read(tmp_path: Path, prompt: str) -> None:
    battles, bad = read(tmp_path / "a.csv", f'{HEADER}"{prompt}",x,y,tie\n')
    assert (list(battles.prompts), bad) == ([prompt], [])


def test_bytes_that_are_no_utf8_cost_their_own_row_only(tmp_path: Path) -> None:
    rows = (HEADER + "ok,x,y,tie\n").encode() + b"\xff\xfe,x,y,tie\nq,x,y,tie\n"
    battles, bad = read(tmp_path / "a.csv", rows)
    assert battles.prompts == ("ok", "q")
    assert bad[0][0] == 3
    assert "not UTF-8" in bad[0][1]
    lines = line().encode() + line(prompt="#").encode().replace(b"#", b"\xff") + line(prompt="r").encode()
    for content, name in ((lines, "a.jsonl"), (b"[" + lines.replace(b"}\n{", b"},\n{") + b"]", "a.json")):
        battles, bad = read(tmp_path / name, content)
        assert battles.prompts == ("q", "r")
        assert bad[0][0] == 2
        assert "not UTF-8" in bad[0][1]


def test_rows_of_the_wrong_width_and_missing_cells(tmp_path: Path) -> None:
    _, bad = read(
        tmp_path / "a.csv", HEADER + "q,x,y,tie,more\nq,x,y\nok,x,y,tie\n,x,y,tie\nq,,y,tie\nq,x,y,\n  ,x,y,tie\n"
    )
    assert [number for number, _ in bad] == [2, 3, 5, 6, 7, 8]
    assert "5 fields where the header has 4" in bad[0][1]
    assert [reason for _, reason in bad[2:]] == [
        "prompt is missing", "model_a is missing", "outcome is missing", "prompt is empty",
    ]  # fmt: skip


def test_what_a_json_line_may_be(tmp_path: Path) -> None:
    content = (
        line()
        + "\n   \n"
        + line(outcome=float("nan"))
        + line(prompt=None)
        + "[1]\n"
        + line(prompt="\ud83d hi", outcome=0.3, weight=2, source="s")
        + "not json\n"
        + line(model_a=7)
        + line(outcome=2)
        + line(weight=0)
        + "[" * 100_000
        + "\n"
        + line()[:-9]
    )
    battles, bad = read(tmp_path / "a.jsonl", content)
    assert [(row.prompt, row.outcome, row.weight, row.source) for row in battles] == [
        ("q", 1.0, 1.0, "a"),
        ("\ufffd hi", 0.3, 2.0, "s"),
    ]
    assert [number for number, _ in bad] == [4, 5, 6, 8, 9, 10, 11, 12, 13]
    wanted = [
        "missing",
        "missing",
        "mapping",
        "not JSON",
        "must be a name",
        "[0, 1]",
        "above 0",
        "not JSON",
        "not JSON",
    ]
    for (_, reason), part in zip(bad, wanted, strict=True):
        assert part in reason


def test_a_json_array_has_lines_too(tmp_path: Path) -> None:
    content = f'[\n {line()},\n\n {{"prompt": "r",\n "model_a": "x"}},\n {line(prompt="s")}]\n'
    battles, bad = read(tmp_path / "a.json", content)
    assert battles.prompts == ("q", "s")
    assert bad == [(5, "model_b is missing")]


@pytest.mark.parametrize(
    ("content", "lines", "reason"),
    [
        (f'[{line()},\n {{"prompt": "q"', [3], "nothing after it was read"),
        (f"[{line()}", [2], "ends before the array does"),
        (f"[{line()} {line()}]", [1], "no comma"),
        (f"[{line()}]\nmore", [2], "after the end of the array"),
    ],
)
def test_a_broken_json_array_is_refused_and_counted(
    tmp_path: Path, content: str, lines: list[int], reason: str
) -> None:
    message, report = damage(tmp_path / "a.json", content)
    assert report.rows_kept == 1
    assert f"damaged from line {lines[0]} on: " in message
    assert reason in message


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
def test_a_cut_gzip_file_is_refused_even_when_skipping(tmp_path: Path, kind: str) -> None:
    prompts = [os.urandom(40).hex() for _ in range(2000)]
    content = {
        "csv": HEADER + "".join(f"{prompt},x,y,tie\n" for prompt in prompts),
        "jsonl": "".join(line(prompt=prompt) for prompt in prompts),
        "json": "[" + ",".join(line(prompt=prompt) for prompt in prompts) + "]",
    }[kind]
    packed = gzip.compress(content.encode())
    path = tmp_path / f"a.{kind}.gz"
    message, report = damage(path, packed[: len(packed) // 2])
    assert 500 < report.rows_kept < 1500
    assert report.rows_bad == 1
    assert "nothing from here on can be read" in message
    assert "cut it off there" in message
    with pytest.raises(DataError, match="nothing from here on can be read"):
        read_battles(path)
    path.write_bytes(packed[:12])
    with pytest.raises(DataError, match="is damaged"):
        read_battles(path)


def test_a_bad_row_is_refused_by_file_line_reason_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEADER + "q,x,y,tie\nq,x,y,lost\n")
    with pytest.raises(DataError, match=r"a\.csv, line 3: outcome is 'lost'.*on_bad_row=\"skip\""):
        read_battles(path)


def test_skipped_rows_are_warned_of_once_and_all_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEADER + "q,x,y,tie\n" * 151 + "".join(f"q,x,y,lost{n}\n" for n in range(150)))
    report = ReadReport()
    with caplog.at_level(logging.WARNING):
        read_battles(path, on_bad_row="skip", report=report)
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "150 of 301 rows could not be used and were skipped"
    ]
    assert report.rows_bad == 150
    assert len(report.bad_rows) == 100
    assert report.reasons == {"unknown outcome": 150}
    assert "301 rows read, 151 used, 150 not used" in str(report)


def test_several_files_and_calls_are_summed_in_one_report(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        path.write_text(line(prompt=path.name))
    report = ReadReport()
    battles = read_battles(paths, report=report)
    assert battles.prompts == ("a.jsonl", "b.jsonl")
    assert battles.sources == ("a", "b")
    read_battles(str(paths[0]), name="mine", report=report)
    assert [(Path(file.file).name, file.format, file.kept) for file in report.files] == [
        ("a.jsonl", "battles", 1),
        ("b.jsonl", "battles", 1),
        ("a.jsonl", "battles", 1),
    ]


@pytest.mark.parametrize("content", ["", "\n\n", HEADER, "[]"])
def test_a_file_without_rows_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.dat"
    path.write_text(content)
    with pytest.raises(DataError, match="holds no rows"):
        read_battles(path)


def test_a_file_without_one_good_row_is_refused_even_when_skipping(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEADER + "q,x,x,tie\n")
    with pytest.raises(DataError, match=r"none of 1 rows could be used; first: .*both 'x'"):
        read_battles(path, on_bad_row="skip")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prompt,model_a,model_b,winner\n".encode("utf-16"), "UTF-16"),
        ("prompt,model_a,model_b,winner\n".encode("utf-32"), "UTF-32"),
        (b"\0\0\xfe\xff" + "prompt,model_a,model_b,winner\n".encode("utf-32-be"), "UTF-32"),
        (b"prompt,prompt,model_a,model_b,winner\nq,q,x,y,tie\n", "more than one column"),
        (b'"prompt,model_a\nq', "header cannot be read"),
        (b"PAR1 and then nothing", "Parquet"),
        # The time of packing would be in the name of the test, and each process of a run packs at its own.
        (gzip.compress(b"PAR1 and then nothing", mtime=0), "unpack it first"),
    ],
)
def test_files_that_are_refused_as_a_whole(tmp_path: Path, content: bytes, message: str) -> None:
    if b"PAR1" in content:
        pytest.importorskip("pyarrow")
    path = tmp_path / "a.dat"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_battles(path)


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError, match="is a pipe or device, not a file; write its content to a file"):
            read_battles(path)


@pytest.mark.parametrize("kind", ["jsonl", "json", "rows"])
def test_a_weight_and_source_that_come_late_are_read(tmp_path: Path, kind: str) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": f"q{n}", "model_a": "x", "model_b": "y", "outcome": 1.0}
        | ({"weight": 5.0, "source": "late"} if n >= 60 else {})
        for n in range(100)
    ]
    path = tmp_path / f"a.{kind}"
    path.write_text(json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows)))
    battles = read_battles(rows if kind == "rows" else path)
    assert battles.weights.sum() == 60 + 40 * 5
    assert set(battles.sources) == {"late", "" if kind == "rows" else "a"}


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("/no/such/file.csv", DataError, "cannot be read"),
        ("a\0b", DataError, "cannot be read"),
        (Path(__file__).parent, DataError, "is a folder"),
        (3, ConfigurationError, "a path, paths"),
        (b"a.csv", ConfigurationError, "a path, paths"),
        ({"train": []}, ConfigurationError, "pass one of its values"),
        ([], DataError, "holds no rows"),
        ([1, 2], DataError, "wanted a mapping"),
    ],
)
def test_what_is_no_source_is_refused(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_battles(source)


def test_progress_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(line())
    read_battles(path, progress=True)
    captured = capsys.readouterr()
    assert "reading" in captured.err
    assert not captured.out
