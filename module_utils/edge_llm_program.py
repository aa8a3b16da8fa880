"""What runs on a host by itself: put there from the archive in which Ansible brings a module."""

from __future__ import annotations

import pkgutil
from pathlib import Path

from ansible import module_utils

from .edge_llm_host import read_text
from .edge_llm_models import write_atomically

_PREFIX = "edge_llm_"


def install(lib: Path) -> None:
    """See to it that the package `edge_llm` in `lib` has what the calling module came with."""
    package = lib / "edge_llm"
    package.mkdir(parents=True, exist_ok=True)
    texts = {"__init__.py": ""}
    for finder, name, _ in pkgutil.iter_modules(module_utils.__path__):
        if name.startswith(_PREFIX):
            loader = finder.find_spec(f"ansible.module_utils.{name}", None).loader  # type: ignore[union-attr]
            texts[f"{name}.py"] = loader.get_source(f"ansible.module_utils.{name}")  # type: ignore[union-attr]
    for name, text in texts.items():
        if read_text(package / name) != text:
            write_atomically(package / name, text.encode(), package)
