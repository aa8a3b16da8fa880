"""Audio transcription: a form with a file, passed on with the model's own name in it."""

from __future__ import annotations

from typing import cast

import msgspec
from msgspec import Raw

from llm_provider.providers.base import LLMProvider
from llm_provider.providers.engine_http import Answer
from llm_provider.server.client_apis.form import Form
from llm_provider.server.fields import Fields
from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translator import Asked, Headers, Translator


class FormFields(Fields):
    """The text fields of a form, as those of a JSON object."""

    def __init__(self, form: Form) -> None:
        texts = {part.name: form.text(part.name) for part in form.parts if not part.is_file}
        super().__init__({name: Raw(msgspec.json.encode(text)) for name, text in texts.items()})
        self.form = form

    @property
    def stream(self) -> bool:
        return False


class TranscriptionTranslator(Translator):
    """A request to /v1/audio/transcriptions; every engine that has it reads the same form."""

    def __init__(self, asked: Asked, provider: LLMProvider) -> None:
        self.path = asked.route.feature.paths[provider.name]
        self.body = {}
        self.headers = []
        self._form = cast(FormFields, asked.fields).form  # as `read_form` made them

    async def send(self, provider: LLMProvider) -> Answer:
        form = self._form.replace("model", provider.model)
        return await provider.send_form(self.path, form, self._form.content_type)


def read_form(data: bytearray, headers: Headers) -> FormFields:
    """Read a body. Raises TranslationError for what is no form, or one that cannot be served."""
    kinds = [value for name, value in headers if name == b"content-type"]
    form = Form(kinds[0].decode("latin-1") if kinds else "", data)
    form.require_file("file")
    if (form.text("stream") or "false").lower() != "false":
        raise TranslationError(
            "stream", "'stream' is not supported at /v1/audio/transcriptions. Leave it out."
        )
    return FormFields(form)
