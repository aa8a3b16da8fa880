"""A form with a file (multipart/form-data, RFC 7578), as audio transcription takes one.

Only names and small fields are read; the file stays as it was sent. Starlette's reader would put it
into a temporary file, and needs python-multipart, which could not put the form together again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from llm_provider.server.translations.errors import TranslationError

_MOST_PARTS = 64
_MOST_HEAD = 4096
_MOST_FIELD = 64 * 1024
# RFC 2046's characters, but for the space, which nobody uses.
_LETTERS = r"[0-9A-Za-z'()+_,./:=?-]{1,70}"
_BOUNDARY = re.compile(rf'boundary="?({_LETTERS})"?\s*(?:;|$)', re.IGNORECASE)
_NAME = re.compile(rb'[;\s]name="([^"\r\n]*)"', re.IGNORECASE)
_FILENAME = re.compile(rb"[;\s]filename\*?=", re.IGNORECASE)
_DISPOSITION = re.compile(rb"^content-disposition:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """A field of a form: where it stands in the body, from its delimiter on, and its content."""

    name: str
    is_file: bool
    start: int
    end: int
    content: memoryview


class Form:
    """The fields of a form. Raises TranslationError for what is no form."""

    def __init__(self, content_type: str, body: bytes | bytearray) -> None:
        kind = content_type.partition(";")[0].strip().lower()
        found = _BOUNDARY.search(content_type)
        if kind != "multipart/form-data" or found is None:
            raise TranslationError(
                "file", "The body must be a form with a file, of the type multipart/form-data."
            )
        self.content_type = f'multipart/form-data; boundary="{found[1]}"'
        self._body = memoryview(body)
        self._delimiter = b"--" + found[1].encode()
        self.parts = list(self._read(body))

    def text(self, name: str) -> str | None:
        """Return a field's text; None where there is none. Raises TranslationError."""
        for part in self.parts:
            if part.name == name and not part.is_file:
                try:
                    return bytes(part.content[:_MOST_FIELD]).decode()
                except UnicodeDecodeError:
                    raise TranslationError(name, f"'{name}' is invalid: it is not UTF-8.") from None
        return None

    def require_file(self, name: str) -> None:
        """Raise TranslationError where the form has no file of that name, or an empty one."""
        if not any(part.name == name and part.is_file and len(part.content) for part in self.parts):
            raise TranslationError(name, f"'{name}' is missing. Send the audio as a file.")

    def replace(self, name: str, text: str) -> bytes:
        """Return the form with `text` as its only field `name`."""
        field = (
            self._delimiter
            + f'\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        )
        kept = [self._body[part.start : part.end] for part in self.parts if part.name != name]
        return b"".join([field, *kept, self._delimiter, b"--\r\n"])

    def _read(self, body: bytes | bytearray) -> Iterator[Part]:
        start = 0 if body.startswith(self._delimiter) else body.find(b"\r\n" + self._delimiter) + 2
        if start == 1:
            raise _broken("its first boundary is missing")
        for _ in range(_MOST_PARTS):
            after = start + len(self._delimiter)
            if body.startswith(b"--", after):
                return
            end = body.find(b"\r\n" + self._delimiter, after)
            head_end = body.find(b"\r\n\r\n", after, after + _MOST_HEAD)
            if end < 0 or head_end < 0 or head_end > end:
                raise _broken("a field has no end")
            disposition = _DISPOSITION.search(body[after:head_end])
            name = _NAME.search(disposition[1]) if disposition else None
            if disposition is None or name is None:
                raise _broken("a field has no name")
            yield Part(
                name=name[1].decode("utf-8", "replace"),
                is_file=_FILENAME.search(disposition[1]) is not None,
                start=start,
                end=end + 2,
                content=self._body[head_end + 4 : end],
            )
            start = end + 2
        raise _broken(f"it has more than {_MOST_PARTS} fields")


def _broken(why: str) -> TranslationError:
    return TranslationError("file", f"The form is invalid: {why}.")
