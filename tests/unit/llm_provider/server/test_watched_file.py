"""Files that are read again when they change: once, and however they do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_provider import ConfigurationError
from llm_provider.server.watched_file import WatchedFile


def test_a_change_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one\n")
    file = WatchedFile(path)
    assert not file.changed()
    path.write_text("two words\n")
    assert [file.changed(), file.changed()] == [True, False]
    path.unlink()
    assert [file.changed(), file.changed()] == [True, False]
    path.write_text("two words\n")
    assert [file.changed(), file.changed()] == [True, False]


def test_a_file_in_its_place_is_another(tmp_path: Path) -> None:
    """Even of the same size and time, as where a clock is coarse."""
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_text("one\n")
    other.write_text("two\n")
    for each in (path, other):
        os.utime(each, ns=(10**18, 10**18))
    file = WatchedFile(path)
    other.replace(path)
    assert file.changed()


def test_lines_that_count(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("# a remark\n\n  one \r\n\ttwo\n#three\n")
    assert WatchedFile(path).lines("The file", "a line") == ["one", "two"]
    for content in (b"", b"\n \n# nothing\n"):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match="is empty; wanted: a line"):
            WatchedFile(path).lines("The file", "a line")
    path.write_bytes(b"\xff\n")
    with pytest.raises(ConfigurationError, match=r"The file .* cannot be read: "):
        WatchedFile(path).lines("The file", "a line")
