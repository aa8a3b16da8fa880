"""CPU features that the sandbox hides."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from edge_fleet.plan.repacking import AVX2
from edge_host.host_info.hardware import parse_cpu_features
from sandbox import cpu, images
from sandbox.errors import SandboxError

INIT = Path(images.__file__).parent / "board/init"
FLAGS = (
    "flags\t\t: fpu sse4_2 fma avx f16c bmi1 avx2 bmi2 avx512f avx512dq avx512bw avx512cd avx512vl"
    " avx512_bf16 amx_tile amx_int8 fma4\n"
)


def test_nothing_is_hidden_where_nothing_is_asked() -> None:
    assert cpu.hidden({}) is None


def test_another_word_is_refused() -> None:
    with pytest.raises(SandboxError, match=r"SANDBOX_CPU is invalid: 'zen4' was found. Set it to"):
        cpu.hidden({"SANDBOX_CPU": "zen4"})


@pytest.mark.parametrize(("name", "left"), [("haswell", AVX2), ("sse42", frozenset())])
def test_a_board_has_no_hidden_feature(name: str, left: frozenset[str], tmp_path: Path) -> None:
    """The board's init edits /proc/cpuinfo with a sed command: this runs that very command."""
    (words,) = re.findall(
        r"^ *sed -E (\"/\^flags.*\") /proc/cpuinfo", INIT.read_text(), re.MULTILINE
    )
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{FLAGS}model name\t: avx512f\n")
    hidden = cpu.hidden({"SANDBOX_CPU": name})
    assert hidden is not None
    said = subprocess.run(
        ["sh", "-c", f"sed -E {words} {tmp_path}/cpuinfo"],
        env={"HIDDEN_FEATURES": hidden.features, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert parse_cpu_features(said) == sorted(left)
    assert "fpu sse4_2" in said and said.endswith("fma4\nmodel name\t: avx512f\n")


def test_the_engines_images_have_one_library_then(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = images.table("build")
    emulated = images.arm64()
    monkeypatch.setenv("SANDBOX_CPU", "haswell")
    changed = images.table("build")
    assert {name for name in whole if whole[name] != changed[name]} == {"llamacpp", "ollama"}
    assert b"! -name libggml-cpu-haswell.so -delete" in changed["llamacpp"].files["Dockerfile"]
    assert images.arm64() == emulated


def test_pulled_images_cannot_hide_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "official", lambda *_: {"llamacpp": "x@sha256:0", "python": "y"})
    monkeypatch.setenv("SANDBOX_CPU", "haswell")
    with pytest.raises(SandboxError, match="set SANDBOX_IMAGES=build"):
        images.table("pull")
