"""A server on the loopback for aria2: a tracker with fixed peers, and redirects to the source."""

from __future__ import annotations

import http.client
import http.server
import threading
import urllib.parse
from typing import Any

from .http_source import request_head
from .job import BundleFile, DownloadError, DownloadJob
from .torrent import bencode, encode_peers


class LoopbackServer:
    """An HTTP server on this machine's loopback, for the downloader only.

    As a tracker it answers with the peers of the job. Below /source/ it redirects to the source.
    """

    def __init__(self, job: DownloadJob) -> None:
        answer = bencode({"interval": 30, "min interval": 10, **encode_peers(job.peers)})
        urls = {f"/source/{job.name}/{urllib.parse.quote(file.name)}": file for file in job.files}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                file = urls.get(self.path)
                if file is not None:
                    self.send_response(302)
                    self.send_header("Location", self.redirect_target(file))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(answer)

            do_HEAD = do_GET

            def redirect_target(self, file: BundleFile) -> str:
                return resolve_redirect(job, file) if job.token else file.url

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LoopbackServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()


def resolve_redirect(job: DownloadJob, file: BundleFile) -> str:
    """Return the address to which the source redirects a request with the token.

    So the downloader does not need the token. The file's own address where there is no redirect.
    """
    try:
        _, headers = request_head(job, file)
    except (DownloadError, OSError, http.client.HTTPException):
        return file.url
    return urllib.parse.urljoin(file.url, headers.get("location") or file.url)
