"""The names that the package exports."""

from __future__ import annotations

from types import ModuleType

import pytest

import llm_provider
from llm_provider import errors


def test_every_public_name_is_there() -> None:
    for name in llm_provider.__all__:
        assert getattr(llm_provider, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = llm_provider.nothing


@pytest.mark.parametrize("module", [llm_provider, errors])
@pytest.mark.parametrize("name", sorted(errors.RENAMED))
def test_earlier_names_of_errors_work(module: ModuleType, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{name} is deprecated; use "):
        assert getattr(module, name) is errors.RENAMED[name]
