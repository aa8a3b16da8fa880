"""Server-sent events as they arrive, however they are cut."""

from __future__ import annotations

from llm_provider.http.sse import EventParser


def test_event_parser_on_every_cut() -> None:
    raw = b": note\r\ndata: a\xc3\xa9\r\n\r\nevent: x\ndata:b\ndata: c\n\ndata: [DONE]\n\n"
    for at in range(len(raw)):
        parser = EventParser()
        assert parser.feed(raw[:at]) + parser.feed(raw[at:]) == ["aé", "b\nc", "[DONE]"]
