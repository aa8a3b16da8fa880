"""The source of weights over HTTP: what it is asked beforehand, and how curl downloads from it."""

from __future__ import annotations

import http.client
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from .job import Failure, File, Job, room

ASK_SECONDS = 15.0
ASK_ATTEMPTS, ASK_PAUSE = 3, 2.0
_AGENT = "edge-llm"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def ask(job: Job, file: File) -> None:
    """Ask the source whether it has the very file, without a byte of it. Raises Failure.

    A source that tells neither size nor hash is believed until the download.
    """
    try:
        status, headers = head(job, file)
        for _ in range(ASK_ATTEMPTS - 1):
            if not _passing(status):
                break
            time.sleep(ASK_PAUSE)
            status, headers = head(job, file)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise Failure(_untrusted(file, reason.verify_message)) from None
        raise Failure(f"{file.url} cannot be reached ({reason})") from None
    judge(job, file, status, headers)


def head(job: Job, file: File) -> Tuple[int, Mapping[str, str]]:
    """The source's answer to a HEAD request: status and headers, of a redirect too."""
    context = ssl.create_default_context()
    # As curl judges, which fetches: many a company's authority lacks what newer Pythons ask for.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    if job.authorities:
        try:
            if "-----BEGIN" in job.authorities:
                context.load_verify_locations(cadata=job.authorities)
            else:
                context.load_verify_locations(job.authorities)
        except (OSError, ssl.SSLError) as error:
            raise Failure(f"the certificates of llm_models_ca cannot be read: {error}") from None
    handlers: List[Any] = [_NoRedirect(), urllib.request.HTTPSHandler(context=context)]
    if job.proxy:
        handlers.append(urllib.request.ProxyHandler({"http": job.proxy, "https": job.proxy}))
    request = urllib.request.Request(file.url, method="HEAD", headers={"User-Agent": _AGENT})  # noqa: S310
    if job.token:
        request.add_header("Authorization", f"Bearer {job.token}")
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=ASK_SECONDS) as answer:
            return answer.status, _lower(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, _lower(error.headers)


def _lower(headers: "Message[str, str]") -> Dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _passing(status: int) -> bool:
    """Whether a source may answer otherwise in a while."""
    return status in (408, 425, 429) or status >= 500


def judge(job: Job, file: File, status: int, headers: Mapping[str, str]) -> None:
    """Raise Failure where a source's answer says that it does not have the very file.

    `headers` have names in lower case.
    """
    if status in (401, 403):
        how = (
            "the token of llm_models_token has no access to it: accept the model's terms with its"
            " account, or use another one"
            if job.token
            else "it asks for a token: set llm_models_token"
        )
        raise Failure(f"{file.url} answered with status {status}; {how}")
    if _passing(status):
        raise Failure(
            f"{file.url} answered with status {status}; run this again later, or set"
            " llm_models_mirror to another source"
        )
    if status not in (200, 301, 302, 303, 307, 308):
        raise Failure(
            f"{file.url} answered with status {status}; set llm_models_mirror to a source that has"
            " it, or repair the entry in models.yml"
        )
    target = urllib.parse.urljoin(file.url, headers.get("location") or file.url)
    if file.url.startswith("https:") and not target.startswith("https:"):
        raise Failure(
            f"{file.url} leads to {target.partition('?')[0]}, which is not encrypted; accepted is"
            " https, all the way"
        )
    if status == 200 and (headers.get("content-type") or "").lower().startswith("text/html"):
        raise Failure(
            f"{file.url} answered with an HTML page where {file.name} should be; is there a page to"
            " sign in to, or a proxy in between?"
        )
    size = headers.get("x-linked-size") or (headers.get("content-length") if status == 200 else "")
    etags = [headers.get("x-linked-etag"), headers.get("etag")]
    hashes = [tag.strip('"') for tag in etags if tag and re.fullmatch(r'"?[0-9a-f]{64}"?', tag)]
    size = size or ""
    told = (hashes or [file.sha256])[0], int(size) if size.isdigit() else file.size
    if told != (file.sha256, file.size):
        raise Failure(
            f"models.yml asks for {file.name} with sha256 {file.sha256} and {file.size} bytes, and"
            f" {file.url} has {(hashes or ['no hash'])[0]} and {size or 'no size'}; repair the"
            " entry in models.yml, or set llm_models_mirror to a source that has the file"
        )


def _quoted(value: str) -> str:
    """A value as curl reads it in its configuration."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def curl_config(job: Job, file: File, target: Path) -> str:
    """What curl is told on its standard input: nothing of it shows in a list of processes."""
    encrypted = file.url.startswith("https:")
    settings = [
        f"url = {_quoted(file.url)}",
        f"output = {_quoted(str(target))}",
        f"user-agent = {_quoted(_AGENT)}",
        f"proto = {_quoted('=https' if encrypted else '=http,https')}",
        f"proto-redir = {_quoted('=https' if encrypted else '=http,https')}",
        f"max-filesize = {file.size}",
        *("fail", "location", "silent", "show-error", "max-redirs = 5", "connect-timeout = 15"),
        # A source that gives nothing for half a minute has gone.
        *("speed-limit = 1", "speed-time = 30"),
        'continue-at = "-"',
        'write-out = "%{http_code}"',
    ]
    if job.token:
        # Not handed on to where the source redirects, if that is another host.
        settings.append(f"header = {_quoted('Authorization: Bearer ' + job.token)}")
    if job.proxy:
        settings.append(f"proxy = {_quoted(job.proxy)}")
    if job.authorities:
        settings.append(f"cacert = {_quoted(job.authorities)}")
    return "\n".join(settings) + "\n"


class Ended(NamedTuple):
    """How curl ended: its exit status, the status of the last answer (0: none), its own words."""

    code: int
    status: int
    words: str


def _untrusted(file: File, why: str) -> str:
    return (
        f"the certificate of {file.url} is not one that this machine trusts ({why}); llm_models_ca"
        " names a file with further authorities"
    )


# curl's exit statuses (man curl): those of a connection that may be better at the next attempt.
_PASSING = {5, 6, 7, 16, 18, 28, 35, 52, 55, 56, 92, 95, 96}
NO_RANGES = 33
_TOO_LARGE, _NOT_WRITTEN, _NO_PROTOCOL = 63, 23, 1


def verdict(job: Job, file: File, ended: Ended) -> Optional[str]:
    """None where another attempt may help, else why it would not: a sentence."""
    if ended.code in _PASSING or _passing(ended.status):
        return None
    if ended.code == _NOT_WRITTEN:
        return None if room(job) > 0 else "the disk is full"
    if ended.code == _NO_PROTOCOL:
        kinds = "https, all the way" if file.url.startswith("https:") else "http and https"
        return f"{file.url} leads to an address of another kind; accepted is {kinds}"
    if ended.code == _TOO_LARGE:
        return (
            f"{file.url} gives more than the {file.size} bytes that models.yml says; repair the"
            " entry in models.yml, or set llm_models_mirror to a source that has the file"
        )
    if ended.code in (60, 77):
        return _untrusted(file, ended.words)
    if ended.status >= 400:
        try:
            judge(job, file, ended.status, {})
        except Failure as failure:
            return str(failure)
    return f"{file.url} could not be fetched: {ended.words or f'curl ended with {ended.code}'}"
