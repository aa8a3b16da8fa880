"""Commands that never end: each wait for one ends, with what to do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edge_host import commands, systemd
from edge_host.download import incoming, process
from edge_host.download.incoming import IncomingFile
from edge_host.download.job import DownloadError
from edge_host.download.session import DownloadSession
from edge_host.errors import ReleaseError
from edge_host.registry import mirror
from edge_host.registry.errors import RegistryError
from edge_host.release import stage
from edge_host.release import systemd as release_systemd
from edge_host.release.host import Host
from tests.unit.edge_host.test_source import job


@pytest.fixture
def endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose systemd does not answer."""
    for name in ("systemctl", "systemd-run"):
        (tmp_path / name).write_text("#!/bin/sh\nexec sleep infinity\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_systemctl(endless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "SYSTEMCTL_SECONDS", 0.2)
    with pytest.raises(ReleaseError) as caught:
        systemd.run_systemctl("restart", "edge-llm-sockets.service")
    assert str(caught.value) == (
        "systemctl restart edge-llm-sockets.service did not end within 0.2 s. Check systemd on the"
        " host (systemctl list-jobs)"
    )


def test_the_start_of_a_download(endless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND_TIMEOUT", 0.2)
    with pytest.raises(DownloadError) as caught:
        process._start_unit("edge-llm-fetch-x", ["true"], endless, endless)
    assert str(caught.value) == (
        "the unit edge-llm-fetch-x could not be started: systemd-run did not end within 0.2 s."
        " Check systemd on the host (systemctl list-jobs), and run site.yml again"
    )


def test_the_start_of_the_recovery(endless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says then is whether the unit is starting."""
    asked: list[str] = []

    def is_active(*arguments: str, accepted: object) -> str:
        asked.append(arguments[0])
        return "inactive"

    monkeypatch.setattr(release_systemd, "max_activation_seconds", lambda _: 0.1)
    monkeypatch.setattr(release_systemd, "run_systemctl", is_active)
    host = SimpleNamespace(releases=SimpleNamespace(current=lambda: None))
    release_systemd.wait_for_recovery(cast(Host, host))
    assert asked == ["is-active"]


def test_a_copy_of_an_image(endless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "IMAGE_HOURS", 0)
    monkeypatch.setattr(mirror, "SYSTEMCTL_SECONDS", 0.2)
    with pytest.raises(RegistryError) as caught:
        mirror._run([str(endless / "systemd-run")], "engine:1")
    assert str(caught.value) == (
        "The image engine:1 could not be copied into the registry: systemd-run did not end within"
        " 0.2 s. Check systemd on the host, and run site.yml again."
    )


def test_a_pull_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []

    def pull(*arguments: str, timeout: float) -> Any:
        limits.append(timeout)
        raise subprocess.TimeoutExpired(arguments, timeout)

    docker = SimpleNamespace(has_image=lambda name: name == "api:1", run_command=pull)
    with pytest.raises(ReleaseError) as caught:
        stage._provide_images(cast(Host, SimpleNamespace(docker=docker)), "engine:1", "api:1")
    assert str(caught.value) == (
        "the engine's image engine:1 could not be pulled within 43200 s. Check the registry and the"
        " host's network, and run this again"
    )
    assert limits == [stage.PULL_SECONDS]


def test_a_downloader_that_has_closed_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = job(folder=tmp_path)
    asked.bundle_folder.mkdir(parents=True)
    monkeypatch.setattr(incoming, "COMMAND_TIMEOUT", 0.2)
    with (
        IncomingFile(DownloadSession(asked, tmp_path), asked.files[0]) as file,
        subprocess.Popen(
            ["sh", "-c", "exec sleep infinity >&- 2>&-"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as downloader,
    ):  # fmt: skip
        with pytest.raises(DownloadError) as caught:
            file.receive(downloader, "fetching", lambda _: None)
        assert downloader.poll() is not None
    assert str(caught.value) == (
        f"the program that downloads {asked.files[0].name} did not end with its output. Run"
        " site.yml again"
    )


def test_a_process_that_cannot_be_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that waits for a disk that does not answer."""
    monkeypatch.setattr(commands, "END_SECONDS", 0.1)
    with subprocess.Popen(["sleep", "infinity"]) as waiting:
        monkeypatch.setattr(waiting, "kill", lambda: None)
        commands.end_process(waiting)
        assert waiting.poll() is None
        monkeypatch.undo()
        commands.end_process(waiting)
        assert waiting.poll() is not None
