"""Prompts for `bench`: all of one length, and each unlike the others from its first words on.

An engine keeps the prompts that it has read, and reads of a new one only what is behind the part
that both share. So a prompt that comes again says nothing of how fast prompts are read.
"""

from __future__ import annotations

import random

# Words that are one token each, with the space before them, in the vocabularies of common models.
_TEXT = (
    "time year people way day man thing woman life child world school state family student group"
    " country problem hand part place case week company system program question work government"
    " number night point home water room mother area money story fact month lot right study book"
    " eye job word business issue side kind head house service friend father power hour game line"
    " end member law car city community name president team minute idea body information back"
    " parent face others level office door health person art war history party result change"
    " morning reason research girl guy moment air teacher force education foot boy age policy"
)
_WORDS = _TEXT.split()
_TASK = "Write a long story in which all of these words occur."
SAMPLE_WORDS = 32
"""Words of the first prompt, by which the server's tokens are counted."""


def make_prompt(words: int, source: random.Random) -> str:
    """Return a prompt of so many words, and a task whose answer is longer than any limit."""
    return f"{' '.join(source.choices(_WORDS, k=words))}. {_TASK}"


def words_for(tokens: int, counted: int | None) -> int:
    """Return how many words a prompt of about `tokens` tokens has.

    `counted`: the tokens that the server counts in a prompt of SAMPLE_WORDS, its template and the
    task included; None where it does not tell: a word is taken for a token then.
    """
    share = 1.0 if not counted else counted / SAMPLE_WORDS
    return max(1, round(tokens / share))
