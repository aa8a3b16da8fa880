"""How long a host goes on with a silent source, and how long the hosts after it wait for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_host.download import http_download
from edge_host.download.http_source import CurlResult
from edge_host.download.job import DownloadError, parse_job
from edge_host.download.peer_client import TAKE_OVER_SECONDS, Timing
from edge_host.download.peers import START_SECONDS, plan_timing
from edge_host.download.source_timing import CONNECT_SECONDS, SILENT_SECONDS, max_silence_seconds


class Silent:
    """A download whose source has sent half of the file, and sends nothing more."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = {"name": "m", "path": "m", "size": 2, "sha256": "0" * 64, "url": "http://x.test/m"}
        self.job = parse_job({"name": "m", "folder": tmp_path, "files": [file], "mode": "source"})
        self.file, self.received, self.complete = self.job.files[0], 0, False
        self.seconds, self.attempts = 0.0, 0
        monkeypatch.setattr(http_download, "check_file", lambda *_: None)
        monkeypatch.setattr(http_download, "_run_curl", self._run)

    def _run(self, *_: object) -> CurlResult:
        # The first one is connected already.
        self.seconds += SILENT_SECONDS + (CONNECT_SECONDS if self.attempts else 0)
        self.attempts += 1
        self.received = 1
        return CurlResult(28, 0, "it is silent")

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def raise_if_stopped(self) -> None:
        """Nobody stops it."""

    def add_origin(self, _: str) -> None:
        """It is the only one."""


def test_hosts_wait_for_longer_than_the_first_one_goes_on_with_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one silent source would have all of them ask it."""
    silent = Silent(tmp_path, monkeypatch)
    with pytest.raises(DownloadError, match="the connection ended"):
        http_download.download_from_source(silent, silent)  # type: ignore[arg-type]
    assert silent.seconds == max_silence_seconds()
    assert Timing().stall >= silent.seconds + Timing().lost_contact
    assert Timing().stall == silent.seconds + TAKE_OVER_SECONDS


def test_predecessors_that_are_started_later_get_longer(tmp_path: Path) -> None:
    job = {"name": "m", "folder": tmp_path, "files": [], "mode": "peers"}
    assert plan_timing(parse_job(job)) == Timing()
    later = plan_timing(parse_job({**job, "started_between": 60}))
    assert later == Timing(first_contact=Timing().first_contact + 60 * START_SECONDS)
