"""GGUF headers: the shape of a model, and files that are damaged or no GGUF files."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import gguf
import pytest
from gguf import GGUFValueType as Type
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_host.weights.gguf import FILE_TYPES, InvalidGGUF, compare_shapes, read_header, read_shape
from sandbox.smoke_model import CONTEXT, ENDLESS, SMOKE, TOOLS, UNICODE, Chain

bounded = settings(max_examples=200, deadline=None, database=None)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path: Path = tmp_path_factory.mktemp("gguf") / "smoke.gguf"
    SMOKE.write(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that a test reads: one for all of Hypothesis' examples."""
    path: Path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    return path


def read(path: Path, content: bytes) -> dict[str, Any]:
    path.write_bytes(content)
    return read_header(path)


def refusal(path: Path, content: bytes) -> str:
    with pytest.raises(InvalidGGUF) as caught:
        read(path, content)
    return str(caught.value)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def header(*pairs: bytes, version: int = 3, tensors: int = 0) -> bytes:
    """A file that ends behind its pairs, each of them as `pair` makes it."""
    return b"GGUF" + struct.pack("<IQQ", version, tensors, len(pairs)) + b"".join(pairs)


def pair(kind: int, value: bytes) -> bytes:
    return text(b"name") + struct.pack("<I", kind) + value


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("chain", [SMOKE, TOOLS, UNICODE, ENDLESS], ids=lambda chain: chain.name)
def test_the_shape_of_a_model_is_read(chain: Chain, version: int, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    chain.write(path)
    with path.open("r+b") as stream:
        # Both versions have the same header.
        stream.seek(4)
        stream.write(struct.pack("<I", version))
    fields = read_header(path)
    assert fields["general.name"] == chain.name
    assert fields["tokenizer.ggml.tokens"] == [word for word, _ in chain.vocabulary()]
    assert read_shape(fields) == {
        "family": "llama",
        "quantization": "F32",
        "layers": 1,
        "embedding": 64,
        "heads": 1,
        "kv_heads": 1,
        "head_size": 64,
        "feed_forward": 64,
        "vocabulary": len(chain.vocabulary()),
        "context_trained": CONTEXT,
    }


def test_every_type_of_value_is_read(target: Path) -> None:
    """As the format's own library writes them: what is not needed must be skipped rightly, too."""
    values: dict[Type, Any] = {
        Type.UINT8: 255, Type.INT8: -128, Type.UINT16: 65535, Type.INT16: -32768,
        Type.UINT32: 2**32 - 1, Type.INT32: -(2**31), Type.FLOAT32: 0.5, Type.BOOL: True,
        Type.STRING: "Gr\u00fc\u00dfe", Type.UINT64: 2**64 - 1, Type.INT64: -(2**63),
        Type.FLOAT64: 0.1,
    }  # fmt: skip
    lists: dict[str, list[Any]] = {
        "numbers": [1, -2, 3],
        "words": ["one", "", "three"],
        "flags": [True, False],
    }
    writer = gguf.GGUFWriter(target, "llama")
    for kind, value in values.items():
        writer.add_key_value(kind.name, value, kind)
    for name, items in lists.items():
        writer.add_array(name, items)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    expected = {kind.name: value for kind, value in values.items()} | lists
    assert read_header(target) == {"general.architecture": "llama"} | expected


def test_numbers_that_differ_from_layer_to_layer(target: Path) -> None:
    writer = gguf.GGUFWriter(target, "gemma3n")
    writer.add_block_count(3)
    writer.add_embedding_length(256)
    writer.add_head_count([4, 8, 2])
    writer.add_head_count_kv([0, 2, 1])
    writer.add_feed_forward_length([512, 2048, 1024])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    found = read_shape(read_header(target))
    assert found == {
        "family": "gemma3n",
        "layers": 3,
        "embedding": 256,
        "heads": 8,
        "kv_heads": 2,
        "head_size": 32,
        "feed_forward": 2048,
    }


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, {}),
        ({"general.file_type": 15}, {"quantization": "Q4_K_M"}),
        ({"general.file_type": 99}, {}),
        (
            {"llama.embedding_length": 96, "llama.attention.head_count": 3},
            {"embedding": 96, "heads": 3, "kv_heads": 3, "head_size": 32},
        ),
        # A head may have another size than its share of the width.
        (
            {
                "llama.embedding_length": 96,
                "llama.attention.head_count": 3,
                "llama.attention.head_count_kv": 1,
                "llama.attention.key_length": 256,
            },
            {"embedding": 96, "heads": 3, "kv_heads": 1, "head_size": 256},
        ),
        # A model without attention, and lists of no layer.
        (
            {"llama.embedding_length": 96, "llama.attention.head_count": 0},
            {"embedding": 96, "heads": 0, "kv_heads": 0},
        ),
        (
            {"llama.attention.head_count": 4, "llama.attention.head_count_kv": []},
            {"heads": 4, "kv_heads": 4},
        ),
        ({"llama.attention.head_count": []}, {}),
        ({"llama.vocab_size": 100}, {"vocabulary": 100}),
        ({"llama.vocab_size": 100, "tokenizer.ggml.tokens": ["a", "b"]}, {"vocabulary": 2}),
        # Of something else in the same file.
        ({"clip.block_count": 7}, {}),
    ],
)
def test_shapes_in_other_forms(fields: dict[str, Any], found: dict[str, Any]) -> None:
    assert read_shape({"general.architecture": "llama"} | fields) == {"family": "llama"} | found


def test_quantizations_have_the_names_of_the_gguf_library() -> None:
    names = {
        kind.value: kind.name.partition("_")[2].removesuffix("_MOE") for kind in gguf.LlamaFileType
    }
    assert {kind: names[kind] for kind in FILE_TYPES} == FILE_TYPES
    assert set(range(19)) - FILE_TYPES.keys() == {4, 5, 6}  # taken back by their makers


def test_an_empty_header() -> None:
    assert read_shape({}) == {}


def test_a_header_that_is_truncated_early(content: bytes, target: Path) -> None:
    for length in range(256):
        short = content[:length]
        expected = (
            "its header is truncated"
            if length >= 4
            else f"it begins with {short!r}, not with b'GGUF'"
        )
        assert refusal(target, short) == expected, length


@given(st.data())
@bounded
def test_a_header_that_is_truncated_anywhere(
    content: bytes, target: Path, data: st.DataObject
) -> None:
    """The chat template is the last of its pairs; tensors, which nobody reads here, follow."""
    end = content.index(SMOKE.template.encode()) + len(SMOKE.template)
    length = data.draw(st.integers(4, end - 1))
    assert refusal(target, content[:length]) == "its header is truncated"
    assert read(target, content[:end]) == read(target, content)


@given(st.data())
@bounded
def test_a_damaged_file_is_read_or_refused(
    content: bytes, target: Path, data: st.DataObject
) -> None:
    damaged = bytearray(content[:20_000])
    # The beginning has most of what decides how the rest is read.
    places = st.one_of(st.integers(0, 600), st.integers(0, len(damaged) - 1))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(places)] = data.draw(st.integers(0, 255))
    try:
        read(target, bytes(damaged))
    except InvalidGGUF as error:
        assert re.match(r"it begins with|its (GGUF version|header) ", str(error))


@given(st.binary(max_size=200), st.booleans())
@bounded
def test_random_content_is_read_or_refused(target: Path, rest: bytes, begun: bool) -> None:
    try:
        read(target, (header()[:8] if begun else b"") + rest)
    except InvalidGGUF as error:
        assert re.match(r"it begins with|its (GGUF version|header) ", str(error))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "it begins with b'', not with b'GGUF'"),
        (b"<!DOCTYPE html>", "it begins with b'<!DO', not with b'GGUF'"),
        (b"version https://git-lfs", "it begins with b'vers', not with b'GGUF'"),
        (b"gguf" + header()[4:], "it begins with b'gguf', not with b'GGUF'"),
        (header(version=1), "its GGUF version is 1, and versions 2 and 3 are supported"),
        (header(version=4), "its GGUF version is 4, and versions 2 and 3 are supported"),
        # One for machines whose numbers begin at the other end.
        (
            b"GGUF\0\0\0\3" + header()[8:],
            "its GGUF version is 50331648, and versions 2 and 3 are supported",
        ),
        (header(pair(13, b"")), "its header has a value of the unknown type 13"),
        (header(pair(9, struct.pack("<IQ", 9, 1))), "its header has a list of the unknown type 9"),
        (
            header(pair(9, struct.pack("<IQ", 13, 0))),
            "its header has a list of the unknown type 13",
        ),
    ],
)
def test_content_that_is_no_gguf(target: Path, content: bytes, sentence: str) -> None:
    assert refusal(target, content) == sentence


def test_text_that_is_not_utf_8(target: Path) -> None:
    assert read(target, header(pair(8, text(b"caf\xe9")))) == {"name": "caf\ufffd"}


@pytest.mark.parametrize(
    ("count", "sentence"),
    [
        # As many as there may be, and none of them there.
        (2**24, "its header is truncated"),
        (2**24 + 1, "its header announces 16777217 items"),
        (2**63, "its header announces 9223372036854775808 items"),
        (2**64 - 1, "its header announces 18446744073709551615 items"),
    ],
)
@pytest.mark.parametrize(
    "around",
    [
        (b"GGUF" + struct.pack("<IQ", 3, 0), b""),  # pairs
        (header()[:16] + struct.pack("<Q", 1), b"name"),  # length of a pair's name
        (header(pair(8, b"")), b"text"),
        (header(pair(9, struct.pack("<I", 4))), b"\1\0\0\0"),  # numbers of a list
        (header(pair(9, struct.pack("<I", 12))), b""),
        (header(pair(9, struct.pack("<I", 8))), text(b"one")),  # texts of a list
    ],
    ids=["pairs", "name", "text", "numbers", "doubles", "texts"],
)
def test_impossible_counts_are_refused_at_once(
    target: Path, around: tuple[bytes, bytes], count: int, sentence: str
) -> None:
    before, after = around
    # Counted one by one, these would take for ever.
    assert refusal(target, before + struct.pack("<Q", count) + after) == sentence


def test_an_impossible_count_of_tensors(target: Path) -> None:
    assert refusal(target, header(tensors=2**24 + 1)) == "its header announces 16777217 items"
    assert read(target, header(tensors=2**24)) == {}


def test_a_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.gguf"):
        with pytest.raises(OSError, match=re.escape(str(path))):
            read_header(path)


FOUND = {"family": "llama", "layers": 2, "context_trained": 8192}


@pytest.mark.parametrize(
    ("expected", "phrases"),
    [
        ({}, []),
        (FOUND, []),
        # Values that only one of them has.
        ({"family": "llama", "heads": 9}, []),
        ({"layers": 3}, ["layers is 3 in models.yml and 2 in the file"]),
        (
            {"context_trained": 8193, "layers": 1, "family": "qwen2"},
            [
                "context_trained is 8193 in models.yml and 8192 in the file",
                "layers is 1 in models.yml and 2 in the file",
                "family is qwen2 in models.yml and llama in the file",
            ],
        ),
        # A catalogue may allow less than a model was trained for.
        ({"context_trained": 8191}, []),
        ({"context_trained": 256}, []),
        # Of nothing else less is right.
        ({"layers": 1}, ["layers is 1 in models.yml and 2 in the file"]),
    ],
)
def test_shapes_are_compared(expected: dict[str, Any], phrases: list[str]) -> None:
    assert compare_shapes(expected, FOUND) == phrases


def test_the_catalogue_is_compared_with_a_real_file(content: bytes, target: Path) -> None:
    found = read_shape(read(target, content))
    assert compare_shapes(found, found) == []
    assert compare_shapes(found | {"quantization": "Q4_1", "context_trained": 4096}, found) == [
        "quantization is Q4_1 in models.yml and F32 in the file"
    ]
