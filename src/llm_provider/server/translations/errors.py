"""The one exception of a translation."""

from __future__ import annotations


class TranslationError(ValueError):
    """A request or an answer cannot be translated.

    `param` names the field, with dots: `messages.0.content.1.source`. The text is a sentence for
    the client that says what was found and what to do.
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param
