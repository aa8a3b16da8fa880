"""The language of a text: the best guess among common ones, made without a network."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

LANGUAGES = (
    "ar", "bg", "bn", "ca", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "he", "hi",
    "hr", "hu", "id", "it", "ja", "ko", "lt", "lv", "ms", "nl", "no", "pl", "pt", "ro", "ru", "sk",
    "sl", "sr", "sv", "sw", "ta", "te", "th", "tr", "uk", "ur", "vi", "zh",
)  # fmt: skip
"""Codes of ISO 639. Fewer than the library has: a guess among dialects is often the wrong one."""

CONFIDENT = 0.4
"""The share from which on a guess counts. Sentences of five words reach 0.5; digits or a name alone
stay below 0.1."""


def guess_language(text: str) -> tuple[str, float]:
    """The most probable language of a text, and its share among all (0 to 1)."""
    language, share = _identifier().classify(text)
    return str(language), float(share)


@cache
def _identifier() -> LanguageIdentifier:
    # Half a second of CPU time, so only for suites that ask for it.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    return identifier
