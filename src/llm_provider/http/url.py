"""Base URLs and request paths: parsed and validated before anything is sent."""

from __future__ import annotations

import base64
import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

import idna

from llm_provider.http.errors import InvalidSetting

_PORTS = {"http": 80, "https": 443}
_EXAMPLE = "http://127.0.0.1:11434"
# Underscores are not valid in host names, but frequent in names of containers.
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII | re.IGNORECASE)
_MAX_NAME = 253
# The characters of RFC 3986, without the fragment: spaces and line ends would end the request line.
_TARGET = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*", re.ASCII)
_MAX_TARGET = 8 * 1024
_HIDDEN = "***"


@dataclass(frozen=True)
class BaseURL:
    """A server's address. `str()` is for messages: it contains no credentials.

    `prefix` is the path in front of every request's path. `authorization` is the Basic credential
    that the URL contained, as the value of an `Authorization` header.
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""
    authorization: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.prefix}"

    @property
    def authority(self) -> str:
        """Host and port as in a URL, without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def join(self, path: str) -> str:
        """Return the URL of a request. Raises InvalidSetting."""
        return f"{self}{check_path(path)}"


def parse_base_url(url: str) -> BaseURL:
    """Return the parts of `http(s)://[user:password@]host[:port][/prefix]`.

    Raises InvalidSetting.
    """
    if not (url.isprintable() and " " not in url):  # urlsplit would remove some of them
        raise _invalid(url, "it contains spaces or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _invalid(url, "host or port are malformed") from None
    if parts.scheme not in _PORTS:
        raise _invalid(url, "the scheme is not http or https")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise _invalid(url, "it has a query or a fragment")
    if port == 0:
        raise _invalid(url, "port 0 cannot be used")
    host = _host(parts.hostname or "")
    if host is None:
        raise _invalid(url, "the host name is invalid")
    prefix = parts.path.rstrip("/")
    if "@" in prefix:  # a user with a '/': the rest of the credentials would be shown
        raise _invalid(url, "the path has an '@'. In credentials, '/' is %2F")
    if not _is_target(prefix):
        raise _invalid(url, "the path is invalid")
    return BaseURL(parts.scheme, host, port or _PORTS[parts.scheme], prefix, _authorization(parts))


def check_path(path: str) -> str:
    """Return the path, with its query, of a request; raise InvalidSetting unless it is valid.

    Characters that could end the request line, and segments that leave the base URL, are refused.
    """
    if not path.startswith("/") or not _is_target(path):
        # The path may contain a key as a parameter, so the message does not quote it.
        raise InvalidSetting(
            "The path of a request is invalid. It starts with '/', other characters than those of "
            f"a URL are percent-encoded, and it has at most {_MAX_TARGET} characters."
        )
    return path


def redact(url: str) -> str:
    """Return a URL, valid or not, for a message: without credentials and query."""
    scheme, separator, rest = url.rpartition("://") if "@" not in url else url.partition("://")
    if not separator:
        scheme, rest = "", url
    before, at, after = rest.rpartition("@")
    if at and re.search(r"[?#]", before):  # a password, or a query that holds an '@'
        after = ""
    shown = re.split(r"[?#]", after, maxsplit=1)[0]
    hidden = (f"{_HIDDEN}@" if after else _HIDDEN) if at and before else ""
    known = scheme if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,20}", scheme) else ""
    return f"{known}{separator if known else ''}{hidden}{shown}"


def _invalid(url: str, reason: str) -> InvalidSetting:
    return InvalidSetting(
        f"The address {redact(url)!r} is not usable: {reason}. Give one such as {_EXAMPLE}."
    )


def _is_target(path: str) -> bool:
    segments = path.partition("?")[0].split("/")
    leaves = any(re.sub("%2e", ".", one, flags=re.IGNORECASE) in (".", "..") for one in segments)
    return len(path) <= _MAX_TARGET and _TARGET.fullmatch(path) is not None and not leaves


def _host(host: str) -> str | None:
    """Return the host as it is looked up; None if it cannot be one."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    if ":" in host:
        return None
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode()
        except idna.IDNAError:
            return None
    labels = host.removesuffix(".").split(".")
    valid = len(host) <= _MAX_NAME and all(_LABEL.fullmatch(label) for label in labels)
    return host if valid else None


def _authorization(parts: SplitResult) -> str | None:
    credentials, at, _ = parts.netloc.rpartition("@")
    if not at or not credentials:
        return None
    user, _, password = credentials.partition(":")
    raw = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return f"Basic {base64.b64encode(raw).decode()}"
