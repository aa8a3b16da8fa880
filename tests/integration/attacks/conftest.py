"""The engine and the keys of the chat API's unit tests."""

from tests.unit.llm_provider.conftest import engine, keys, no_environment

__all__ = ["engine", "keys", "no_environment"]
