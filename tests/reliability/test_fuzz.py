"""Damaged files never break a reader; those that once did are kept here."""

import contextlib
import sqlite3

import pytest

from autolabel.app.compose import compose
from autolabel.core.errors import ConfigError, StoreError
from autolabel.store.run import open_reader
from tests.fakes import album
from tests.reliability.fuzz import fuzz, text
from tests.reliability.plans import Bench


@pytest.mark.parametrize("mutations", [250, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_damaged_file_is_read_or_refused_and_never_breaks_a_reader(mutations, tmp_path):
    findings = fuzz(mutations, seed=mutations, keep=tmp_path)
    assert not findings.bad, text(findings)
    assert len(findings.tried) >= 18, "a reader is missing"
    assert sum(findings.refused.values()) > mutations // 4, "the damage is too small to prove anything"


@pytest.mark.parametrize(
    "content",
    [
        "_target_: a: b",
        "_target_: [",
        "\0",
        b"\xff\xfea\x00",
        "[" * 5000,
        "*a",
        "? [a]: b",
        "3",
    ],
    ids=lambda content: repr(content)[:20],
)
def test_a_configuration_file_that_is_no_mapping_is_one_line(content, tmp_path):
    (tmp_path / "detect").mkdir()
    file = tmp_path / "detect" / "mine.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        compose("label", ["detect=mine"], str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", ["image_id", "path"])
@pytest.mark.parametrize("value", [None, 3, "text"])
def test_a_database_with_other_types_is_refused(column, value, nursery, tmp_path):
    album(tmp_path / "in", 4)
    Bench(nursery, tmp_path).label("run")
    with contextlib.closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as db:
        db.execute("PRAGMA writable_schema=ON")
        db.execute("UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'manifest'")
        db.commit()
    with contextlib.closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as db:
        db.execute(f"UPDATE manifest SET {column} = ? WHERE ordinal = 1", (value,))
        db.commit()
    with open_reader(tmp_path / "run") as reader, pytest.raises(StoreError):
        list(reader.records())
