"""Tables of pictures: every row once, and all other columns with it, as JSON says them honestly."""

import datetime
import decimal
import json

import pytest

from autolabel.core.errors import SourceError
from autolabel.source.parquet_list import ParquetListSource
from tests.remote import copy_tree

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def table(file, **columns):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file, row_group_size=2)
    return file


def source(path, column="path", root=None, split_column="split"):
    return ParquetListSource(path=str(path), column=column, root=root, split_column=split_column)


def test_a_column_names_the_pictures_and_the_others_travel_along(tmp_path):
    file = table(
        tmp_path / "l.parquet", path=["a.jpg", "b/c.jpg"], split=["train", None], site=["north", "süd"], n=[1, 2]
    )
    a, c = source(file).images()
    assert [(ref.image_id, ref.path) for ref in (a, c)] == [
        ("a.jpg", f"{tmp_path}/a.jpg"),
        ("b/c.jpg", f"{tmp_path}/b/c.jpg"),
    ]
    assert (a.split, c.split) == ("train", None)
    assert json.loads(c.extra) == {"site": "süd", "n": 2}


NS = 1_700_000_000_123_456_789
VALUES = [
    ([True, None], pa.bool_(), True),
    ([2**63 - 1, None], pa.int64(), 2**63 - 1),
    ([0.5, None], pa.float64(), 0.5),
    ([float("nan"), None], pa.float64(), None),
    ([float("-inf"), None], pa.float32(), None),
    (["ü", None], pa.large_string(), "ü"),
    ([decimal.Decimal("1.10"), None], pa.decimal128(5, 2), "1.10"),
    ([NS, None], pa.timestamp("ns", "UTC"), "2023-11-14T22:13:20.123456789Z"),
    ([datetime.date(2026, 2, 3), None], pa.date32(), "2026-02-03"),
    ([datetime.time(1, 2, 3), None], pa.time64("us"), "01:02:03.000000"),
    ([5, None], pa.duration("s"), 5),
    ([["a", None], None], pa.list_(pa.string()), ["a", None]),
    ([{"x": [float("nan"), 1.0]}, None], pa.struct([("x", pa.list_(pa.float64()))]), {"x": [None, 1.0]}),
    (
        [{"t": datetime.datetime(2026, 2, 3, tzinfo=datetime.UTC)}, None],
        pa.struct([("t", pa.timestamp("us", "UTC"))]),
        {"t": "2026-02-03T00:00:00+00:00"},
    ),
]


@pytest.mark.parametrize(("column", "kind", "expected"), VALUES)
def test_values_are_what_they_were_and_nothing_is_null(tmp_path, column, kind, expected):
    file = table(tmp_path / "l.parquet", path=["a", "b"], value=pa.array(column, kind))
    first, second = source(file).images()
    assert json.loads(first.extra) == {"value": expected}
    assert json.loads(second.extra) == {"value": None}


def test_columns_of_bytes_are_left_out_and_counted(tmp_path):
    file = table(tmp_path / "l.parquet", path=["a"], thumb=[b"\xff"], nested=[[{"x": b"1"}]], k=[1])
    listed = source(file)
    (ref,) = listed.images()
    assert json.loads(ref.extra) == {"k": 1}
    assert listed.ignored == {"column thumb (bytes)": 1, "column nested (bytes)": 1}


def test_a_row_without_a_path_is_a_failed_picture_of_its_own(tmp_path):
    file = table(tmp_path / "l.parquet", path=["a", None, "", "b"])
    refs = list(source(file).images())
    assert [ref.problem and ref.problem.code for ref in refs] == [None, "missing", "missing", None]
    assert len({ref.image_id for ref in refs}) == 4
    assert "row 1" in refs[1].problem.detail


def test_a_folder_of_tables_is_read_in_the_order_of_names_here_and_at_a_storage(tmp_path, bucket):
    for number in (1, 0):
        table(
            tmp_path / "lists" / f"part-{number}.parquet", url=[f"memory://in/{number}/{i}.jpg" for i in range(5)]
        )
    copy_tree(tmp_path, "/meta")
    here = list(source(tmp_path / "lists", "url", "memory://in/").images())
    there = list(source("memory://meta/lists", "url", "memory://in").images())
    assert [ref.image_id for ref in here] == [f"{n}/{i}.jpg" for n in (0, 1) for i in range(5)]
    assert [(ref.image_id, ref.path) for ref in there] == [(ref.image_id, ref.path) for ref in here]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"other": ["a"]}, r"has no column 'path' \(source.column\), only \['other'\]"),
        ({"path": ["s3://elsewhere/a.jpg"]}, "row 0: 's3://elsewhere/a.jpg' is not at memory://in"),
        ({"path": ["../a.jpg"]}, "row 0: .* leads out"),
    ],
)
def test_what_cannot_be_trusted_is_refused_by_file_and_row(tmp_path, columns, message):
    file = table(tmp_path / "l.parquet", **columns)
    with pytest.raises(SourceError, match=message):
        list(source(file, root="memory://in").images())


def test_what_is_no_parquet_says_so(tmp_path):
    (tmp_path / "l.parquet").write_bytes(b"PAR1 no")
    for path, message in (
        (tmp_path / "l.parquet", "is not Parquet"),
        (tmp_path / "absent", "no such file"),
        (tmp_path.parent / "none", "no such"),
    ):
        with pytest.raises(SourceError, match=message):
            list(source(path).images())
