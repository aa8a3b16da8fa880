"""Results as JUnit XML, the format that continuous integration reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree as ET

from llm_suite.result import ConversationResult, SuiteResult, Try
from llm_suite.safe_text import printable


def junit_xml(results: Iterable[SuiteResult]) -> bytes:
    """The document: a test suite for each suite, a test case for each conversation."""
    root = ET.Element("testsuites")
    for result in results:
        root.append(_suite(result))
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(each.get(count, "0")) for each in root)))
    root.set("time", f"{sum(float(each.get('time', '0')) for each in root):.3f}")
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def write_junit(path: Path, results: Iterable[SuiteResult]) -> None:
    """Write the document, with its folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(junit_xml(results))


def _suite(result: SuiteResult) -> ET.Element:
    errors = sum(bool(each.last.error) for each in result.conversations)
    suite = ET.Element(
        "testsuite",
        name=printable(result.name),
        tests=str(len(result.conversations)),
        failures=str(len(result.failed) - errors),
        errors=str(errors),
        skipped="0",
        time=f"{sum(each.seconds for each in result.conversations):.3f}",
        timestamp=result.began.removesuffix("Z"),
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in (("title", result.title), ("url", result.url), ("model", result.model)):
        ET.SubElement(properties, "property", name=name, value=printable(value))
    for each in result.conversations:
        suite.append(_case(result, each))
    return suite


def _case(suite: SuiteResult, result: ConversationResult) -> ET.Element:
    case = ET.Element(
        "testcase",
        classname=printable(f"llm_suite.{suite.name}"),
        name=printable(result.name),
        time=f"{result.seconds:.3f}",
    )
    if not result.ok:
        problems = result.last.problems
        kind = "error" if result.last.error else "failure"
        found = ET.SubElement(case, kind, message=printable(problems[0]), type=kind)
        found.text = printable("\n".join(problems))
    out = ET.SubElement(case, "system-out")
    out.text = printable("\n\n".join(_lines(result.tries)))
    return case


def _lines(tries: list[Try]) -> list[str]:
    """Every try: what was asked, what was answered, and why it failed."""
    texts = []
    for number, one in enumerate(tries, 1):
        heading = f"try {number} of {len(tries)}: {'passed' if one.ok else 'failed'}"
        lines = [heading] if len(tries) > 1 else []
        for turn in one.turns:
            counted = f", {turn.prompt_tokens} prompt tokens" if turn.prompt_tokens else ""
            lines += [
                f"asked: {turn.asked}",
                f"found: {turn.answer or '-'} ({turn.seconds:.2f} s{counted})",
            ]
        texts.append("\n".join([*lines, *one.problems]))
    return texts
