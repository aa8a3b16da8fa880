"""Long texts with one sentence to be found: the same ones every time, so that runs compare."""

from __future__ import annotations

from collections.abc import Iterator

_WHO = (
    "The gardener", "A young teacher", "The old captain", "Our neighbour", "The librarian",
    "A travelling merchant", "The watchmaker", "The baker's daughter", "A quiet student",
    "The lighthouse keeper", "The village doctor",
)  # fmt: skip
_DID = (
    "walked slowly along", "remembered", "painted a picture of", "wrote a long letter about",
    "looked after", "told the children about", "carefully measured", "passed by",
    "had never forgotten", "spent the whole morning near", "took a photograph of",
    "asked everybody about", "liked to sit beside",
)  # fmt: skip
_WHAT = (
    "the stone bridge", "a narrow river", "the market square", "an empty railway station",
    "the apple trees", "the northern harbour", "a small wooden boat", "the tower of the church",
    "a field of barley", "the road to the mountains", "an old map", "the winter garden",
    "the second house on the left", "a row of lanterns", "the quiet library",
    "the kitchen window", "a blue bicycle",
)  # fmt: skip
_WHEN = (
    "before breakfast.", "on a rainy afternoon.", "while the bells were ringing.",
    "until it became dark.", "as everybody else had gone home.", "during the long summer.",
    "without saying a word.",
)  # fmt: skip


def haystack(words: int, needle: str = "", position: float = 0.5, seed: int = 0) -> str:
    """A text of about `words` words, with the sentence `needle` at a share of its length.

    Another `seed` gives another text.
    """
    sentences: list[str] = []
    count = 0
    place = words * position
    at: int | None = None
    for sentence in _sentences(seed):
        if at is None and count >= place:
            at = len(sentences)
        if count >= words:
            break
        sentences.append(sentence)
        count += len(sentence.split())
    if needle:
        sentences.insert(len(sentences) if at is None else at, needle)
    # Paragraphs: a model reads text, and not one endless line.
    return "\n\n".join(" ".join(sentences[n : n + 8]) for n in range(0, len(sentences), 8))


def _sentences(seed: int) -> Iterator[str]:
    # The numbers of parts are prime to each other, so a sentence comes again after 17,017.
    number = seed * 1009
    while True:
        parts = (part[number % len(part)] for part in (_WHO, _DID, _WHAT, _WHEN))
        yield " ".join(parts)
        number += 1
