"""The source of weights over HTTP: its check before a download, and curl's options and results."""

from __future__ import annotations

import http.client
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from .job import BundleFile, DownloadError, DownloadJob
from .source_timing import CONNECT_SECONDS, SILENT_SECONDS

HEAD_TIMEOUT = 15.0
HEAD_ATTEMPTS, HEAD_PAUSE = 3, 2.0
_AGENT = "edge-llm"
STATUS_WORD = "http-status "
"""Begins the line of curl's standard error that has the status of the last answer."""
_USE_ANOTHER_FILE = (
    "Correct the entry in models.yml, or set llm_models_mirror to a source that has the file"
)
HTML_ADVICE = "Check whether a login page or a proxy answers in place of the source"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def check_file(job: DownloadJob, file: BundleFile) -> None:
    """Check that the source has the very file, without downloading it. Raises DownloadError.

    A source that reports neither size nor hash passes; the download is verified anyway.
    """
    try:
        status, headers = request_head(job, file)
        for _ in range(HEAD_ATTEMPTS - 1):
            if not _is_transient(status):
                break
            time.sleep(HEAD_PAUSE)
            status, headers = request_head(job, file)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(_untrusted_certificate(file, reason.verify_message)) from None
        raise DownloadError(
            f"{file.url} is not reachable: {reason}. Check the network of the machine that"
            " downloads, or set llm_models_proxy, llm_models_mirror or llm_models_cache"
        ) from None
    check_response(job, file, status, headers)


def request_head(job: DownloadJob, file: BundleFile) -> Tuple[int, Mapping[str, str]]:
    """Send a HEAD request for the file: status and headers (names in lower case).

    A redirect is not followed. Raises OSError, http.client.HTTPException, ValueError, and
    DownloadError where `ca_certificates` cannot be read.
    """
    context = ssl.create_default_context()
    # As curl, which downloads: many a company's authority lacks what newer Pythons require.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    if job.ca_certificates:
        try:
            if "-----BEGIN" in job.ca_certificates:
                context.load_verify_locations(cadata=job.ca_certificates)
            else:
                context.load_verify_locations(job.ca_certificates)
        except (OSError, ssl.SSLError) as error:
            raise DownloadError(
                f"the certificates of llm_models_ca are invalid: {error}. Set llm_models_ca to a"
                " file with certificates in PEM format"
            ) from None
    handlers: List[Any] = [_NoRedirect(), urllib.request.HTTPSHandler(context=context)]
    if job.proxy:
        handlers.append(urllib.request.ProxyHandler({"http": job.proxy, "https": job.proxy}))
    request = urllib.request.Request(file.url, method="HEAD", headers={"User-Agent": _AGENT})  # noqa: S310
    if job.token:
        request.add_header("Authorization", f"Bearer {job.token}")
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=HEAD_TIMEOUT) as answer:
            return answer.status, _lower_names(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, _lower_names(error.headers)


def _lower_names(headers: "Message[str, str]") -> Dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _is_transient(status: int) -> bool:
    """Whether a source may answer otherwise in a while."""
    return status in (408, 425, 429) or status >= 500


def check_response(
    job: DownloadJob, file: BundleFile, status: int, headers: Mapping[str, str]
) -> None:
    """Raise DownloadError where a source's answer says that it does not have the very file.

    `headers` have names in lower case.
    """
    _check_status(job, file, status)
    target = urllib.parse.urljoin(file.url, headers.get("location") or file.url)
    if file.url.startswith("https:") and not target.startswith("https:"):
        raise DownloadError(
            f"{file.url} is invalid: it redirects to {target.partition('?')[0]}, which is not"
            " encrypted. Set llm_models_mirror to a source that stays on https"
        )
    if status == 200 and (headers.get("content-type") or "").lower().startswith("text/html"):
        raise DownloadError(
            f"{file.url} is invalid: the answer is an HTML page, not {file.name}. {HTML_ADVICE}"
        )
    size = headers.get("x-linked-size") or (headers.get("content-length") if status == 200 else "")
    size = size or ""
    etags = [headers.get("x-linked-etag"), headers.get("etag")]
    hashes = [tag.strip('"') for tag in etags if tag and re.fullmatch(r'"?[0-9a-f]{64}"?', tag)]
    reported = (hashes or [file.sha256])[0], int(size) if size.isdigit() else file.size
    if reported != (file.sha256, file.size):
        raise DownloadError(
            f"{file.url} does not fit models.yml: the source reports sha256"
            f" {(hashes or ['unknown'])[0]} and size {size or 'unknown'}, and models.yml says"
            f" sha256 {file.sha256} and size {file.size}. {_USE_ANOTHER_FILE}"
        )


def _check_status(job: DownloadJob, file: BundleFile, status: int) -> None:
    """Raise DownloadError unless the status is that of a file or of a redirect to one."""
    answered = f"the source answered with status {status}"
    if status in (401, 403):
        if job.token:
            raise DownloadError(
                f"{file.url} is not accessible: {answered} to the token of llm_models_token. Accept"
                " the model's terms with the account of this token, or set another token"
            )
        raise DownloadError(
            f"{file.url} is not accessible: {answered}, as it requires a token. Set"
            " llm_models_token"
        )
    if _is_transient(status):
        raise DownloadError(
            f"{file.url} is not available: {answered}. Run site.yml again later, or set"
            " llm_models_mirror to another source"
        )
    if status not in (200, 301, 302, 303, 307, 308):
        state = "missing" if status in (404, 410) else "not available"
        raise DownloadError(f"{file.url} is {state}: {answered}. {_USE_ANOTHER_FILE}")


def _untrusted_certificate(file: BundleFile, reason: str) -> str:
    return (
        f"the certificate of {file.url} is not trusted by this machine: {reason}. Set llm_models_ca"
        " to a file with the certificates of its authority"
    )


def _quote(value: str) -> str:
    """Return a value as curl reads it in its configuration."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def build_curl_config(job: DownloadJob, file: BundleFile, start: int) -> str:
    """Return curl's options for its standard input, so that no list of processes shows them.

    The file goes to its standard output, from byte `start` on: curl has no file to write to.
    """
    encrypted = file.url.startswith("https:")
    settings = [
        f"url = {_quote(file.url)}",
        f"user-agent = {_quote(_AGENT)}",
        f"proto = {_quote('=https' if encrypted else '=http,https')}",
        f"proto-redir = {_quote('=https' if encrypted else '=http,https')}",
        f"max-filesize = {file.size}",
        *(
            "fail",
            "location",
            "silent",
            "show-error",
            "max-redirs = 5",
            f"connect-timeout = {CONNECT_SECONDS}",
        ),
        # The next host waits for these bytes.
        "no-buffer",
        *("speed-limit = 1", f"speed-time = {SILENT_SECONDS}"),
        f"continue-at = {start}",
        f'write-out = "%{{stderr}}\\n{STATUS_WORD}%{{http_code}}\\n"',
    ]
    if job.token:
        # curl does not send it to the host of a redirect, if that is another one.
        settings.append(f"header = {_quote('Authorization: Bearer ' + job.token)}")
    if job.proxy:
        settings.append(f"proxy = {_quote(job.proxy)}")
    if job.ca_certificates:
        settings.append(f"cacert = {_quote(job.ca_certificates)}")
    return "\n".join(settings) + "\n"


class CurlResult(NamedTuple):
    """How curl ended: its exit status, the status of the last answer (0: none), its message."""

    exit_status: int
    http_status: int
    message: str


# curl's exit statuses (man curl): those of a connection that may be better at the next attempt.
_TRANSIENT = {5, 6, 7, 16, 18, 28, 35, 52, 55, 56, 92, 95, 96}
NO_RANGES = 33
TOO_LARGE, _NO_PROTOCOL = 63, 1


def find_permanent_problem(job: DownloadJob, file: BundleFile, result: CurlResult) -> Optional[str]:
    """Return why a further attempt cannot succeed, or None where it may."""
    if result.exit_status in _TRANSIENT or _is_transient(result.http_status):
        return None
    if result.exit_status == _NO_PROTOCOL:
        protocols = "https" if file.url.startswith("https:") else "http or https"
        return (
            f"{file.url} is invalid: it redirects to another protocol. Set llm_models_mirror to a"
            f" source that stays on {protocols}"
        )
    if result.exit_status == TOO_LARGE:
        return (
            f"{file.url} does not fit models.yml: the source sends more than the {file.size} bytes"
            f" of models.yml. {_USE_ANOTHER_FILE}"
        )
    if result.exit_status in (60, 77):
        return _untrusted_certificate(file, result.message)
    if result.http_status >= 400:
        try:
            _check_status(job, file, result.http_status)
        except DownloadError as error:
            return str(error)
    return (
        f"{file.url} could not be downloaded:"
        f" {result.message or f'curl ended with exit status {result.exit_status}'}. Check the"
        " source, and run site.yml again"
    )


def describe_full_disk(job: DownloadJob) -> str:
    """Return the message for a disk without free space."""
    return f"the disk of {job.folder} is full. Free some space, and run site.yml again"
