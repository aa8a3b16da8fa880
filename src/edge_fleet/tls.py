"""Decides about a host's certificate: which one it serves with, and whether one must be issued.

Pure functions over the texts of files on the control machine: nothing here reads a file or a clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from edge_fleet.certificates import (
    Certificate,
    CertificateError,
    Pair,
    parse_certificate,
    parse_pair,
)
from edge_fleet.host_names import covers, subject_name, subject_names
from edge_fleet.settings import Settings, check_settings
from edge_fleet.text import Problem

AUTHORITY_DAYS = 3650
"""Days for which a certificate authority is valid."""
TO_BE_ISSUED = "to be issued"
"""Stands for the hash of a certificate that does not exist yet: no file has it."""
_EARLIER = timedelta(days=1)
"""Certificates are valid from before they are made, for clients whose clocks are late."""
_CERTIFICATE, _KEY = "tls/certificate.pem", "tls/key.pem"


@dataclass(frozen=True)
class TlsDecision:
    """What is decided about a host's certificate; `as_dict` is its form for Ansible.

    Attributes:
        enabled: whether the chat API serves HTTPS.
        issued: whether the project's authority issues the certificate.
        problems: why it cannot.
        notices: what a person should know.
        names: what an issued certificate must name, as community.crypto takes it.
        issue: why one must be issued; empty where none must.
        keep_key: whether that is for the private key of the one before.
        not_before, not_after: the validity of one that is issued now; of an authority that is made
            now, authority_not_after (times of ASN.1).
        secrets: the files below secrets/ on the host, with the SHA-256 of their content.
    """

    enabled: bool = False
    issued: bool = False
    problems: tuple[Problem, ...] = ()
    notices: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    issue: str = ""
    keep_key: bool = False
    not_before: str = ""
    not_after: str = ""
    authority_not_after: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            name: list(each) if isinstance(each, tuple) else each
            for name, each in asdict(self).items()
        }


@dataclass(frozen=True)
class TlsFiles:
    """Texts of files on the control machine; None for a file that is missing, or not named.

    certificate, key and ca are the operator's (llm_tls_*); pair is the issued certificate with its
    key, authority that of the project's certificate authority.
    """

    certificate: str | None = None
    key: str | None = None
    ca: str | None = None
    pair: str | None = None
    authority: str | None = None


def tls_decision(
    variables: Mapping[str, Any],
    files: Mapping[str, str | None],
    names: Sequence[str],
    url: str,
    now: str,
) -> dict[str, Any]:
    """Decide about a host's certificate.

    Args:
        variables: its llm_* and board_* variables, as the inventory has them.
        files: the fields of TlsFiles.
        names: its names and addresses in the inventory; those that no certificate can have do not
            count.
        url: the address of its chat API for clients.
        now: the time, as in 2026-12-01T10:00:00Z.

    Returns:
        TlsDecision, as a dictionary.
    """
    settings, _ = check_settings(variables)
    if not settings.llm_tls:
        return TlsDecision().as_dict()
    time = datetime.fromisoformat(now).astimezone(UTC)
    decide = _own if settings.llm_tls_certificate or settings.llm_tls_private_key else _issued
    return decide(settings, TlsFiles(**files), names, url, time).as_dict()


def split_pair(certificate: str, key: str) -> dict[str, str]:
    """The two files of the host: {"certificate", "key"}. Raises CertificateError."""
    pair = parse_pair(certificate, key)
    return {"certificate": pair.chain, "key": pair.key}


def _own(
    settings: Settings, files: TlsFiles, _: Sequence[str], url: str, now: datetime
) -> TlsDecision:
    """A certificate of the operator's."""
    problems = _url_problems(url) + _file_problems(settings, files)
    path = settings.llm_tls_certificate
    problems += _unreadable("llm_tls_certificate", path, files.certificate)
    if problems or files.certificate is None or files.key is None:
        return TlsDecision(enabled=True, problems=tuple(problems))
    certificate = parse_certificate(files.certificate)
    secrets: dict[str, str] = {}
    try:
        secrets = _hashes(parse_pair(files.certificate, files.key))
    except CertificateError as error:
        problems.append(
            f"llm_tls_private_key is invalid: {settings.llm_tls_private_key}: {error}. Use the key"
            " of llm_tls_certificate, in PEM format and without passphrase."
        )
    problems += _validity_problems(certificate, now) + _name_problems(certificate, url)
    return TlsDecision(
        enabled=True,
        problems=tuple(problems),
        notices=() if problems else _own_notices(certificate, now),
        secrets=secrets,
    )


def _file_problems(settings: Settings, files: TlsFiles) -> list[Problem]:
    given = {
        "llm_tls_certificate": (settings.llm_tls_certificate, files.certificate),
        "llm_tls_private_key": (settings.llm_tls_private_key, files.key),
    }
    problems = [
        f"{name} is missing: {other} is set, and a certificate needs its private key. Set both, or"
        " neither for a certificate of the project's own authority."
        for name, other in (tuple(given), tuple(reversed(given)))
        if not given[name][0]
    ]
    given["llm_tls_ca"] = (settings.llm_tls_ca, files.ca)
    problems += [
        f"{name} is invalid: the control machine has no file {path}. Use the path of a PEM file."
        for name, (path, text) in given.items()
        if path and text is None
    ]
    return problems + _unreadable("llm_tls_ca", settings.llm_tls_ca, files.ca)


def _unreadable(name: str, path: str | None, text: str | None) -> list[Problem]:
    """Why a file has no certificate, where it should."""
    if text is None:
        return []
    try:
        parse_certificate(text)
    except CertificateError as error:
        return [f"{name} is invalid: {path}: {error}. Use a file of certificates in PEM format."]
    return []


def _url_problems(url: str) -> list[Problem]:
    if urlsplit(url).scheme == "https":
        return []
    return [
        f"board_url is invalid: {url!r}, and with llm_tls the chat API serves HTTPS only. Use an"
        " address that begins with https://."
    ]


def _validity_problems(certificate: Certificate, now: datetime) -> list[Problem]:
    if certificate.not_after <= now:
        wrong = f"it expired on {certificate.not_after:%Y-%m-%d}"
    elif certificate.not_before > now:
        wrong = f"it is valid from {certificate.not_before:%Y-%m-%d} only"
    else:
        return []
    return [
        f"llm_tls_certificate is invalid: {wrong}. Use a valid certificate, and check the control"
        " machine's clock."
    ]


def _name_problems(certificate: Certificate, url: str) -> list[Problem]:
    host = urlsplit(url).hostname or ""
    name = subject_name(host)
    if name is not None and covers(certificate.names, name):
        return []
    found = ", ".join(each.partition(":")[2] for each in certificate.names) or "none"
    return [
        f"llm_tls_certificate does not fit: clients reach the host as {host}, and the certificate"
        f" has the names {found}. Use a certificate with that name, or set board_address to one of"
        " its names."
    ]


def _own_notices(certificate: Certificate, now: datetime) -> tuple[str, ...]:
    if not renewal_is_due(certificate, now):
        return ()
    return (
        f"llm_tls_certificate expires on {certificate.not_after:%Y-%m-%d}. Replace its file, and"
        " run site.yml.",
    )


def _issued(
    settings: Settings, files: TlsFiles, names: Sequence[str], url: str, now: datetime
) -> TlsDecision:
    """A certificate of the project's authority."""
    problems = _url_problems(url)
    host = urlsplit(url).hostname or ""
    if subject_name(host) is None:
        problems.append(
            f"board_address is invalid: no certificate can name {host!r}, as which clients reach"
            " the host. Use a host name or an IP address without a zone."
        )
    if settings.llm_tls_ca:
        problems.append(
            "llm_tls_ca does not fit: the project's own authority issues the certificate. Remove"
            " llm_tls_ca, or set llm_tls_certificate and llm_tls_private_key."
        )
    authority: Certificate | None = None
    if files.authority is not None:
        try:
            authority = parse_pair(files.authority, files.authority).certificate
        except CertificateError as error:
            problems.append(_authority_problem(str(error)))
    if authority is not None and authority.not_after <= now:
        problems.append(_authority_problem(f"it expired on {authority.not_after:%Y-%m-%d}"))
    wanted = subject_names([host, *names, *settings.llm_tls_names])
    pair = _issued_pair(files.pair)
    issue = issue_reason(pair, wanted, authority, now)
    begin = now - _EARLIER
    end = begin + timedelta(days=settings.llm_tls_days)
    notices: tuple[str, ...] = ()
    if authority is not None and authority.not_after < end:
        end = authority.not_after
        notices = (
            f"the certificate authority expires on {end:%Y-%m-%d}, and so do the certificates that"
            " it issues. Replace it: docs/operating.md describes the steps.",
        )
    return TlsDecision(
        enabled=True,
        issued=True,
        problems=tuple(problems),
        notices=notices,
        names=wanted,
        issue=issue,
        keep_key=pair is not None,
        not_before=_asn1(begin),
        not_after=_asn1(end),
        authority_not_after=_asn1(begin + timedelta(days=AUTHORITY_DAYS)),
        secrets=_hashes(None if issue else pair),
    )


def _authority_problem(reason: str) -> Problem:
    return (
        f"the project's certificate authority is invalid: {reason}. Restore authority.pem in"
        " .secrets/tls beside the inventory, or remove it: the next run makes another one, which"
        " clients must get."
    )


def _issued_pair(text: str | None) -> Pair | None:
    """The certificate that was issued before, if it can be used."""
    try:
        return parse_pair(text, text) if text else None
    except CertificateError:
        return None


def issue_reason(
    pair: Pair | None, names: Sequence[str], authority: Certificate | None, now: datetime
) -> str:
    """Why a certificate must be issued; empty where the host keeps the one that it has."""
    if pair is None:
        return "there is none that can be used"
    certificate = pair.certificate
    if authority is None or not certificate.issued_by(authority):
        return "the certificate authority is another one"
    if set(certificate.names) != set(names):
        return "the host has other names"
    if renewal_is_due(certificate, now):
        return f"it expires on {certificate.not_after:%Y-%m-%d}"
    return ""


def renewal_is_due(certificate: Certificate, now: datetime) -> bool:
    """Whether less than a third of the time is left for which the certificate is valid."""
    left = certificate.not_after - now
    return left * 3 < certificate.not_after - certificate.not_before


def _hashes(pair: Pair | None) -> dict[str, str]:
    if pair is None:
        return {_CERTIFICATE: TO_BE_ISSUED, _KEY: TO_BE_ISSUED}
    return {
        _CERTIFICATE: sha256(pair.chain.encode()).hexdigest(),
        _KEY: sha256(pair.key.encode()).hexdigest(),
    }


def _asn1(time: datetime) -> str:
    return f"{time:%Y%m%d%H%M%SZ}"


def trust_files(
    authority: str, ca_file: str, bundle_file: str, system: str
) -> list[dict[str, Any]]:
    """The files by which clients trust the project's authority, as control_files takes them.

    `authority` is the text of its certificate and key; `ca_file` gets the certificate alone,
    `bundle_file` the authorities of the `system` too, for programs that trust one file only.
    """
    certificate = parse_pair(authority, authority).chain
    return [
        {"path": ca_file, "content": certificate},
        {"path": bundle_file, "content": certificate + system},
    ]
