"""Forms with a file, as httpx writes them, and broken ones."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from llm_provider.server.client_apis.form import Form
from llm_provider.server.translations.errors import TranslationError

SOUND = bytes(range(256)) * 40 + b"\r\n--not the boundary\r\n\r\n"


def written(fields: dict[str, Any], files: dict[str, Any] | None = None) -> tuple[str, bytes]:
    request = httpx.Request(
        "POST", "http://board", data=fields, files=files or {"file": ("a.wav", SOUND, "audio/wav")}
    )
    return request.headers["Content-Type"], request.read()


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_fields_and_file(kind: type[bytes | bytearray]) -> None:
    content_type, body = written({"model": "m", "language": "dé"})
    form = Form(content_type, kind(body))
    assert form.text("model") == "m"
    assert form.text("language") == "dé"
    assert form.text("prompt") is None
    assert form.text("file") is None
    form.require_file("file")
    (sound,) = [part for part in form.parts if part.is_file]
    assert bytes(sound.content) == SOUND


def test_a_field_is_replaced_and_the_rest_stays() -> None:
    form = Form(*written({"model": ["a", "b"], "prompt": "x", "file": "a text of that name"}))
    again = Form(form.content_type, form.replace("model", "smoke"))
    assert [part.name for part in again.parts] == ["model", "prompt", "file", "file"]
    assert again.text("model") == "smoke"
    assert [bytes(part.content) for part in again.parts if part.name == "file"] == [
        b"a text of that name",
        SOUND,
    ]
    assert Form(again.content_type, again.replace("new", "é")).text("new") == "é"


def test_a_preamble_and_an_epilogue() -> None:
    kind, body = written({"model": "m"})
    assert Form(kind, b"Read me.\r\n" + body + b"\r\nThe end.").text("model") == "m"


def test_a_quoted_boundary() -> None:
    kind, body = written({"model": "m"})
    head, _, boundary = kind.partition("boundary=")
    assert Form(f'{head}charset=utf-8; BOUNDARY="{boundary}"', body).text("model") == "m"


def test_a_form_without_the_file() -> None:
    for files in ({"other": ("a.wav", SOUND)}, {"file": ("a.wav", b"")}):
        form = Form(*written({"model": "m"}, files))
        with pytest.raises(TranslationError, match=r"'file' is missing\. Send the audio"):
            form.require_file("file")


def test_a_field_that_is_not_utf8() -> None:
    kind, body = written({"model": "m"})
    form = Form(kind, body.replace(b"\r\n\r\nm\r\n", b"\r\n\r\n\xff\r\n"))
    with pytest.raises(TranslationError, match="'model' is invalid: it is not UTF-8"):
        form.text("model")


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=x"]
)
def test_what_is_no_form(content_type: str) -> None:
    with pytest.raises(TranslationError, match="must be a form with a file, of the type multipart"):
        Form(content_type, b"--x--")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "its first boundary is missing"),
        (b"x--b\r\n", "its first boundary is missing"),
        (b"--b\r\n", "a field has no end"),
        (b'--b\r\ncontent-disposition: form-data; name="a"\r\n\r\n1', "a field has no end"),
        (b"--b\r\nContent-Type: x\r\n\r\n1\r\n--b--", "a field has no name"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b--", "a field has no name"),
        (b'--b\r\nX: name="a"' + b"x" * 5000 + b"\r\n\r\n1\r\n--b--", "a field has no end"),
        (
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 70 + b"--b--",
            "it has more than 64 fields",
        ),
    ],
)
def test_a_broken_form(body: bytes, why: str) -> None:
    with pytest.raises(TranslationError, match=f"The form is invalid: {why}."):
        Form("multipart/form-data; boundary=b", body)
