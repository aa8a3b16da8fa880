"""Top-level fields of a body, decoded and re-encoded without the rest."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_provider.providers.encoded_body import MOST_VALUES, encode_body
from llm_provider.server.fields import MOST_FIELDS, FieldError, Fields
from llm_provider.server.json_text import find_invalid_utf8, number_problem

CHAT = b"""
 { "model" : "m\\u00fc", "stream": true,
   "messages": [ {"role":"user" , "content":"\\ud83d\\ude00 \xc3\xa4"} ],
   "stream_options": {"include_usage": false}, "max_tokens": 12,
   "seed": 18446744073709551616, "other": [1.50, null] }
"""


BEYOND = "is beyond the range of a double."


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * depth + b"]" * depth + b"}"


def test_the_view_of_a_chat_body() -> None:
    fields = Fields.parse(CHAT)
    assert fields.model == "mü"
    assert fields.stream is True
    assert fields.stream_options == {"include_usage": False}
    assert fields.max_tokens == 12
    assert fields.names == (
        "model",
        "stream",
        "messages",
        "stream_options",
        "max_tokens",
        "seed",
        "other",
    )
    assert "messages" in fields
    assert "tools" not in fields
    messages = fields.raw("messages")
    assert messages is not None
    assert bytes(messages).startswith(b'[ {"role":"user" , ')
    fields.require_objects("messages")
    assert fields.raw("tools") is None
    assert fields.small("tools") is None
    assert fields.small("other") == [1.5, None]


def test_what_is_missing_or_null() -> None:
    for body in (
        b"{}",
        b'{"model": null, "stream": null, "stream_options": null, "max_tokens": null}',
    ):
        fields = Fields.parse(body)
        assert fields.model is None
        assert fields.stream is False
        assert fields.stream_options == {}
        assert fields.max_tokens is None


@pytest.mark.parametrize(
    ("body", "most"),
    [
        ({"max_completion_tokens": 5, "max_tokens": 9}, 5),
        ({"max_output_tokens": 7}, 7),
        ({"max_tokens": 0, "max_output_tokens": 7}, 7),
        ({"max_tokens": True}, None),
        ({"max_tokens": "5"}, None),
        ({"max_tokens": 5.5}, None),
        ({"max_tokens": -1}, None),
    ],
)
def test_max_tokens(body: dict[str, Any], most: int | None) -> None:
    assert Fields.parse(json.dumps(body).encode()).max_tokens == most


def test_the_body_is_not_copied() -> None:
    data = bytearray(b'{"messages": "' + b"x" * 1000 + b'"}')
    body = Fields.parse(data).body()
    data[20:25] = b"hello"
    assert "xhellox" in body["messages"]


TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUE = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=10,
)


@given(st.dictionaries(TEXT, VALUE, max_size=8), st.booleans())
def test_any_body_is_the_same_after_encoding(body: dict[str, Any], ascii_only: bool) -> None:
    data = json.dumps(body, ensure_ascii=ascii_only, indent=1).encode()
    assert json.loads(encode_body(Fields.parse(data).body())) == body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The body is not JSON: it is empty."),
        (b"{", "The body is not JSON: it ends too early."),
        (b'{"a":1', "The body is not JSON: it ends too early."),
        (b'{"a":1} {}', "The body is not JSON: trailing characters (byte 9)."),
        (b"[]", "The body must be a JSON object."),
        (b'"text"', "The body must be a JSON object."),
        (b"null", "The body must be a JSON object."),
        (b"{a:1}", "The body is not JSON: object keys must be strings (byte 1)."),
        (b'{"a":1,}', "The body is not JSON: trailing comma in object (byte 7)."),
        (b'{"a":1,"b":2,"a":1}', "The body has the field 'a' twice."),
        (b'{"model":"x","mode\\u006c":"y"}', "The body has the field 'model' twice."),
        (b'{"a":NaN}', "The body is not JSON: invalid character (byte 5)."),
        (b'{"a":[Infinity]}', "The body is not JSON: invalid character (byte 6)."),
        (b'{"a":-Infinity}', "The body is not JSON: invalid character (byte 6)."),
        (b'{"a":[1e999]}', f"The body is not JSON: the number 1e999 {BEYOND}"),
        (b'{"a":-1.5E+0400}', f"The body is not JSON: the number 1.5E+0400 {BEYOND}"),
        (b'{"a":' + b"9" * 1001 + b"}", "The body is not JSON: a number has 1001 digits."),
        (
            b'{"a":{"b":[' + b"9" * 400 + b".5]}}",
            f"The body is not JSON: the number {'9' * 40} {BEYOND}",
        ),
        (
            b'{"a":[' + b"1e308," * 101 + b"1]}",
            "The body is not JSON: more than 100 numbers are close to the range of a double.",
        ),
        (nested(100_000), "The body is nested too deeply."),
        (b'{"a":"\xff"}', "The body is not UTF-8: byte 6 is invalid."),
        (b'{"a":"\xed\xa0\x80"}', "The body is not UTF-8: byte 6 is invalid."),
        (b'{"a":"\xc3', "The body is not UTF-8: byte 6 is invalid."),
        (b'\xef\xbb\xbf{"a":1}', "The body starts with a byte order mark. Send UTF-8 without it."),
        ('{"a":1}'.encode("utf-16"), "The body is not UTF-8: byte 0 is invalid."),
        (b'{"a":"\x00"}', "The body is not JSON: invalid character (byte 6)."),
        (b'{"a":"\\x"}', "The body is not JSON: invalid escaped character (byte 7)."),
        (b'{"a":01}', "The body is not JSON: invalid number (byte 6)."),
    ],
)
def test_what_is_no_body_is_refused(body: bytes, message: str) -> None:
    for data in (body, bytearray(body)):
        with pytest.raises(FieldError) as caught:
            Fields.parse(data)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    [
        r"\ud800",
        r"\ud800 and more text than six characters",
        r"\udc00 and more text than six characters",
        r"\ud800A and more text",
        r"\ud800\ud800 and more text",
        r"\\\ud800 and more text",
    ],
)
@pytest.mark.parametrize("body", ['{"a":"%s"}', '{"a":[{"b":"%s"}]}', '{"%s":1}'])
def test_half_a_pair_of_surrogates_is_refused(body: str, text: str) -> None:
    with pytest.raises(FieldError) as caught:
        Fields.parse((body % text).encode())
    assert "half a pair of surrogates" in str(caught.value)


def test_text_that_looks_like_something_else_is_accepted() -> None:
    text = r"1e999 NaN \\ud800 \ud83d\ude00 \" 1e400 [[[[ " + "7" * 5000
    body = (
        '{"a":"' + text + '","b":[1e307,-0.5e-4000,1.7976931348623157e308,' + "9" * 1000 + "]}"
    ).encode()
    assert encode_body(Fields.parse(body).body()) == body


def test_a_depth_that_real_bodies_have_is_accepted() -> None:
    assert encode_body(Fields.parse(nested(500)).body()) == nested(500)


def test_many_fields_are_refused_before_they_take_memory() -> None:
    body = b"{" + b",".join(b'"%d":1' % number for number in range(MOST_FIELDS)) + b"}"
    assert len(Fields.parse(body).names) == MOST_FIELDS
    with pytest.raises(FieldError, match=r"^The body has more than 256 top-level fields\.$"):
        Fields.parse(body[:-1] + b',"more":1}')


@pytest.mark.parametrize(
    ("body", "name", "message"),
    [
        ({"model": 5}, "model", "'model' must be a string."),
        ({"stream": "yes"}, "stream", "'stream' must be true or false."),
        ({"stream": 1}, "stream", "'stream' must be true or false."),
        ({"model": "x" * 5000}, "model", "'model' has 5002 bytes; at most 4096 are accepted."),
    ],
)
def test_an_invalid_field_is_named(body: dict[str, Any], name: str, message: str) -> None:
    with pytest.raises(FieldError) as caught:
        getattr(Fields.parse(json.dumps(body).encode()), name)
    assert (str(caught.value), caught.value.param) == (message, name)


def test_options_that_are_no_object_are_left_to_the_engine() -> None:
    assert Fields.parse(b'{"stream_options": 5}').stream_options is None


@pytest.mark.parametrize("value", ["null", "[]", "[ ]", "5", '"text"', "{}", '["text"]', "[[]]"])
def test_messages_must_be_a_list_of_objects(value: str) -> None:
    with pytest.raises(FieldError) as caught:
        Fields.parse(b'{"messages": %s}' % value.encode()).require_objects("messages")
    assert str(caught.value) == "'messages' must be a list of at least one message."
    assert caught.value.param == "messages"


@pytest.mark.parametrize("value", ["null", "[]", "[ \n]", "5", '""', "{}", "true"])
def test_a_prompt_must_be_text_or_a_list(value: str) -> None:
    fields = Fields.parse(b'{"input": %s}' % value.encode())
    with pytest.raises(FieldError, match=r"^'input' must be a text or a list\.$"):
        fields.require_text_or_list("input")
    with pytest.raises(FieldError, match=r"^'input' must be a text\.$"):
        fields.require_text("input")
    with pytest.raises(FieldError, match=r"^'prompt' must be a text or a list\.$"):
        fields.require_text_or_list("prompt")


def test_usable_fields_pass() -> None:
    fields = Fields.parse(b'{"input": "\\u0061", "prompt": [ 1, 2], "messages": [\n {}]}')
    fields.require_text_or_list("input")
    fields.require_text_or_list("prompt")
    fields.require_objects("messages")
    fields.require_text("input")
    assert fields.is_text("input")
    assert not fields.is_text("prompt")
    assert not fields.is_text("none")


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ('"one"', 1),
        ('["one"]', 1),
        ('["one", "two", "three"]', 3),
        ("[[1, 2], [3]]", 2),
        ("[1, 2, 3, 4]", 1),  # the tokens of one prompt
        ('[1, 2, "and text"]', 1),  # as llama-server reads it
        ('["text", -1]', 1),
        ("[]", 1),
        ("{}", 1),
        ("[" + "1," * MOST_VALUES + "1]", 1),
        ("[" + "[]," * MOST_VALUES + "[]]", MOST_VALUES),
    ],
)
def test_how_many_prompts_a_field_holds(value: str, count: int) -> None:
    fields = Fields.parse(f'{{"prompt": {value}}}'.encode())
    assert fields.count("prompt") == count
    assert fields.count("input") == 1


_MEMORY = """
import resource, sys, time
from llm_provider.providers.encoded_body import MOST_VALUES, encode_body
from llm_provider.server.fields import FieldError, Fields
from llm_provider.server.token_estimate import measure_prompt
Fields.parse(b'{{"warm": "up"}}').body().encode()
part = {part!r}
count = 20 * 2**20 // len(part)
data = bytearray(b'{{"model":"m","messages":[')
for _ in range(64):
    data += part * (count // 64)
data += b'0]}}'
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
open("/proc/self/clear_refs", "w").write("5")  # begins the peak anew
before = rss()
started = time.process_time()
try:
    assert len(Fields.parse(data).body().encode()) > len(data) - 200
    measure_prompt(data)
except FieldError as error:
    assert "100 numbers" in str(error) or "twice" in str(error), error
seconds = time.process_time() - started
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        peak = int(line.split()[1]) * 1024
print(peak - before, len(data), seconds)
"""


@pytest.mark.parametrize(
    "part",
    [
        b"[],",
        b"{},",
        b'"",',
        b"1,",
        b"1.5,",
        b'{"a":[]},',
        b'"\\ud83d\\ude00",',
        b"1e307,",
        b"1e308,",
        b'"1e999",',
        "\u00e4\u4f60".join('""').encode() + b",",
        b'0],"x":[0,',
        b'{"type":"image"},',
    ],
)
def test_a_body_takes_no_more_than_its_size(part: bytes) -> None:
    """20 MiB of anything: no more than the copy that is sent, and no minute of the event loop."""
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY.format(part=part)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    extra, size, seconds = done.stdout.split()
    assert int(extra) < 1.5 * int(size)
    assert float(seconds) < 15


def test_a_typical_body_is_fast() -> None:
    body = json.dumps(
        {
            "model": "m",
            "messages": [{"role": "user", "content": "hello world " * 200}],
            "stream": True,
        }
    ).encode()
    started = time.process_time()
    for _ in range(1000):
        assert Fields.parse(body).stream
    assert time.process_time() - started < 1.0


@given(st.binary(max_size=200))
def test_invalid_utf8_is_found_where_python_finds_it(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        assert find_invalid_utf8(data) == error.start
    else:
        assert find_invalid_utf8(data) is None


@pytest.mark.parametrize("shift", range(5))
def test_invalid_utf8_is_found_across_pieces(shift: int) -> None:
    start = 65536 - 2
    data = b"x" * (start - shift) + "😀".encode() * 3
    assert find_invalid_utf8(data) is None
    assert find_invalid_utf8(data[:-1]) == len(data) - 4
    assert find_invalid_utf8(data + b"\xff") == len(data)
    broken = bytearray(data)
    broken[start - shift + 3] = ord("y")
    assert find_invalid_utf8(broken) == start - shift


@given(st.from_regex(r"\A-?(0|[1-9][0-9]{0,4})(\.[0-9]{1,4})?([eE][+-]?[0-9]{1,4})?\Z"))
def test_a_number_is_refused_exactly_where_it_is_infinite(number: str) -> None:
    body = f'{{"a": [{number}, "{number}"]}}'.encode()
    infinite = float(number) in (float("inf"), float("-inf"))
    assert (number_problem(body) is not None) == infinite


@pytest.mark.parametrize("offset", [-300, -100, -3, -2, -1, 0, 1])
def test_a_huge_number_is_found_across_pieces(offset: int) -> None:
    for number in (b"1e999", b"1E+999", b"8" * 1001):
        lead = b'{"a":"' + b"x" * (65536 + offset - 10) + b'","b":'
        assert number_problem(lead + number + b"}") is not None
