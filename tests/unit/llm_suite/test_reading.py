"""Files of suites: valid ones, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_suite.reading import SuiteError, find_suite, read_suite
from llm_suite.suite import Haystack
from tests.unit.llm_suite.conftest import Write

WHOLE = """
title: Mine
request: {top_p: 0.5, max_tokens: 8}
conversations:
  - name: one
    system: Be brief.
    tools:
      look_up: {description: Look a word up.}
    request: {max_tokens: 9}
    turns:
      - user: Hello
      - user: Again
        haystack: {words: 10, needle: Here., position: 1}
        expect: {tool_call: {name: look_up}}
      - tool_results: {look_up: A word.}
        expect: {contains: word, seconds: 3}
"""


def test_a_suite(write: Write) -> None:
    suite = read_suite(write(WHOLE))
    assert (suite.name, suite.title) == ("mine", "Mine")
    (conversation,) = suite.conversations
    assert conversation.system == "Be brief."
    assert conversation.request == {"temperature": 0, "seed": 0, "max_tokens": 9, "top_p": 0.5}
    assert conversation.tools == (
        {
            "type": "function",
            "function": {
                "name": "look_up",
                "description": "Look a word up.",
                "parameters": {"type": "object", "properties": {}},
            },
        },
    )
    first, second, third = conversation.turns
    assert first.expect == {}
    assert second.haystack == Haystack("Here.", words=10, position=1)
    assert third.user is None and third.tool_results == {"look_up": "A word."}


HEAD = "title: Mine\nconversations:\n  - name: one\n    turns:\n      - user: Hello\n"
EXPECT = f"{HEAD}        expect: "
TURN = "conversations[1].turns[1]"
WRONG = [
    ("", "line 1: the file is empty."),
    ("title: [", "line 1: expected the node content, but found '<stream end>'."),
    ("title: a\ntitle: b", "line 2: the key title stands there twice."),
    ("title: &a [*a]", "line 1: an alias leads to its own anchor."),
    ("- a", "line 1: the file is '['a']'. Use a mapping."),
    ("title: a", "line 1: the file: conversations is missing."),
    ("title: 1\nconversations: []", "line 1: title is '1'. Use a text (in quotes, where it looks"),
    ("title: a\nconversations: []", "line 2: conversations is empty or too short. Give 1 or more."),
    (
        f"{HEAD}titel: a",
        "line 6: the file has no key 'titel'. Did you mean title? Use title, description, request,",
    ),
    (
        HEAD.replace("one", "One two"),
        "line 3: conversations[1].name is 'One two'. Small letters, digits and hyphens.",
    ),
    (HEAD, "line 3: conversations[1] expects nothing, so it cannot fail. Give expect to a turn."),
    (f"{EXPECT}{{}}", f"line 6: {TURN}.expect is empty or too short. Give 1 or more."),
    (
        f"{EXPECT}{{contain: x}}",
        f"line 6: {TURN}.expect has no key 'contain'. Did you mean contains? Use equals, contains,",
    ),
    (f"{EXPECT}{{contains: ''}}", f"line 6: {TURN}.expect.contains is empty or too short. Give 1"),
    (f"{EXPECT}{{contains: 42}}", f"line 6: {TURN}.expect.contains is '42'. Use a text or a list"),
    (f"{EXPECT}{{seconds: 0}}", f"line 6: {TURN}.expect.seconds is '0'. Use more than 0."),
    (
        f"{EXPECT}{{matches: '('}}",
        f"line 6: {TURN}.expect.matches is '(', which is no regular expression: missing ),",
    ),
    (
        f"{EXPECT}{{json_schema: {{type: strin}}}}",
        f"line 6: {TURN}.expect.json_schema is no JSON schema (draft 2020-12): 'strin' is not",
    ),
    (
        f"{EXPECT}{{json_schema: {{$ref: 'http://127.0.0.1/x'}}}}",
        f"line 6: {TURN}.expect.json_schema refers to 'http://127.0.0.1/x', and nothing is fetched."
        " Use a reference within the schema, which begins with #.",
    ),
    (
        f"{EXPECT}{{language: french}}",
        f"line 6: {TURN}.expect.language is 'french'. Use a code of ISO 639 that can be recognised:"
        " ar,",
    ),
    (
        f"{EXPECT}{{tool_call: true}}",
        f"line 6: {TURN}.expect.tool_call is true. Use a mapping with its name.",
    ),
    (
        f"{EXPECT}{{tool_call: {{name: look_up}}}}",
        f"line 6: {TURN}.expect: the tool 'look_up' is missing: the conversation has none. Add it"
        " to tools.",
    ),
    (f"{EXPECT}{{tool_call: {{}}}}", f"line 6: {TURN}.expect.tool_call: name is missing."),
    (
        f"{EXPECT}{{tool_call: {{name: f}}, contains: x}}\n    tools: {{f: {{description: F.}}}}",
        f"line 6: {TURN}.expect has tool_call and contains: an answer that calls a tool has no"
        " text. Judge the text of the turn after tool_results.",
    ),
    (
        f"{EXPECT}{{refuses: {{}}}}",
        f"line 6: {TURN}.expect.refuses: phrases is missing.",
    ),
    (
        f"{EXPECT}{{contains: x}}\n        tool_results: {{f: x}}",
        f"line 5: {TURN} needs either user or tool_results. Use one of them.",
    ),
    (
        f"{EXPECT}{{contains: x}}\n      - tool_results: {{g: x}}\n"
        "    tools: {f: {description: F.}}",
        "line 7: conversations[1].turns[2]: the tool 'g' is missing: the conversation has f.",
    ),
    (
        f"{EXPECT}{{contains: x}}\n        haystack: {{needle: N.}}",
        f"line 7: {TURN}.haystack needs either words or fill. Use one of them.",
    ),
    (
        f"{EXPECT}{{contains: x}}\n        haystack: {{needle: N., fill: 1.5}}",
        f"line 7: {TURN}.haystack.fill is '1.5'. Use at most 0.95.",
    ),
    (
        f"{EXPECT}{{contains: x}}\nrequest: {{stream: true}}",
        "line 7: request has stream. Answers are judged as a whole. Remove the field.",
    ),
    (
        f"{EXPECT}{{contains: x}}\nrequest: {{temperature: hot}}",
        "line 7: request.temperature is 'hot'. Use a number.",
    ),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=lambda each: str(each)[-40:])
def test_a_wrong_file(write: Write, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(SuiteError) as caught:
        read_suite(path)
    assert str(caught.value).startswith(f"{path} is invalid: {message}")


def test_all_that_is_wrong_is_named_in_the_order_of_the_file(write: Write) -> None:
    text = HEAD.replace("user: Hello", "usr: Hello").replace("Mine", "''")
    with pytest.raises(SuiteError) as caught:
        read_suite(write(text))
    lines = str(caught.value).splitlines()
    assert [line.partition(": line ")[2][0] for line in lines] == ["1", "5"]


def test_names_stand_there_once(write: Write) -> None:
    one = "  - {name: one, turns: [{user: Hello, expect: {contains: x}}]}\n"
    with pytest.raises(SuiteError, match=r"line 4: conversations\[2\]: the name one stands there"):
        read_suite(write(f"title: Mine\nconversations:\n{one}{one}"))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_bytes(b"title: \xff")
    with pytest.raises(SuiteError, match=r"is invalid: it is not UTF-8: invalid start byte"):
        read_suite(path)
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(SuiteError, match=r"it has 1048577 bytes\. Use 1048576 at most"):
        read_suite(path)
    with pytest.raises(SuiteError, match=r"none\.yml cannot be read: No such file or directory"):
        read_suite(tmp_path / "none.yml")


def test_a_suite_is_found_by_its_name(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for path in (mine / "chat.yml", theirs / "chat.yml", theirs / "tools.yml"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    folders = [tmp_path / "none", mine, theirs]
    assert find_suite("chat", folders) == mine / "chat.yml"
    assert find_suite("tools", folders) == theirs / "tools.yml"
    assert find_suite("a/b.yml", folders) == Path("a/b.yml")
    with pytest.raises(SuiteError) as caught:
        find_suite("tool", [mine, theirs])
    assert str(caught.value) == (
        f"The suite 'tool' is missing: in {mine} and {theirs} there are chat, tools. Did you mean"
        " tools? Use one of these, or the path of a file that ends in .yml."
    )
    with pytest.raises(SuiteError, match=r"none no suite is there\. Use"):
        find_suite("chat", [tmp_path / "none"])
