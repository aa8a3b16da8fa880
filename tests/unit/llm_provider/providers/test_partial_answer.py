"""The text of an answer that broke off."""

from __future__ import annotations

from llm_provider.errors import text_in

from ..fake import ANSWER, stream_of


def test_text_in_what_had_arrived() -> None:
    assert text_in(stream_of()).strip() == ANSWER
    assert text_in(stream_of().replace(b"\n", b"\r\n")).strip() == ANSWER
    broken = stream_of()[:-150] + b'\n\ndata: {"choices": [{"delta": {"content": 1}}]}\n\ndata: [1]'
    assert ANSWER.startswith(text_in(broken).strip())
    assert text_in(b"\xff\xfe") == text_in(b"") == ""
