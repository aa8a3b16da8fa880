"""The table of a run, a line for each conversation once it has ended."""

from __future__ import annotations

from llm_provider.cli.display import Display
from llm_suite.result import ConversationResult, SuiteResult
from llm_suite.runner import Watcher
from llm_suite.suite import Conversation, Suite


class Table(Watcher):
    """Prints to a display: live on a terminal, plain lines elsewhere."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._width = 0

    def begins(self, suite: Suite, model: str) -> None:
        self._width = max(len("conversation"), *(len(each.name) for each in suite.conversations))
        self._display.line(f"{suite.name}: {suite.title}, answered by {model}", "bold")
        self._display.line(f"{'':<6}  {'conversation':<{self._width}}  {'turns':>5}{'time':>10}")

    def asks(self, conversation: Conversation, number: int) -> None:
        again = f", try {number}" if number > 1 else ""
        self._display.say(f"{conversation.name}{again}")

    def answered(self, result: ConversationResult) -> None:
        mark, style = ("passed", "green") if result.ok else ("FAILED", "red")
        tries = len(result.tries)
        note = f"  at try {tries}" if tries > 1 else ""
        self._display.line(
            f"{mark:<6}  {result.name:<{self._width}}  {len(result.last.turns):>5}"
            f"{result.seconds:>8.2f} s{note}",
            style,
        )
        for number, one in enumerate(result.tries, 1):
            before = f"try {number}: " if tries > 1 else ""
            for problem in one.problems:
                self._display.line(f"{'':<6}  {before}{problem}", "" if result.ok else "red")

    def ends(self, result: SuiteResult) -> None:
        count, failed = len(result.conversations), result.failed
        again = [each.name for each in result.conversations if each.ok and len(each.tries) > 1]
        text = f"{result.name} at {result.url}: {count - len(failed)} passed, {len(failed)} failed"
        if again:
            text += f"; passed only when asked again: {', '.join(again)}"
        self._display.line(f"{text}.", "bold red" if failed else "bold green")
