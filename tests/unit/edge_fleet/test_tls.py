"""Which certificate a host serves with, when one is issued or renewed, and what is refused."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from edge_fleet import certificates
from edge_fleet.certificates import CertificateError, parse_pair, system_authorities
from edge_fleet.plan.build import deployment_plan
from edge_fleet.tls import split_pair, tls_decision, trust_files
from tests.certificates import NOW, authority, certificate_text, issue, key_text, new_key

URL = "https://192.0.2.11:8000"
NAMES = ["192.0.2.11", "pi-01"]
WANTED = ["IP:192.0.2.11", "DNS:pi-01"]
TLS = {"llm_tls": True}
OWN = TLS | {"llm_tls_certificate": "/etc/own.pem", "llm_tls_private_key": "/etc/own.key"}
TO_BE_ISSUED = dict.fromkeys(("tls/certificate.pem", "tls/key.pem"), "to be issued")
CA = authority()


def decision(
    variables: dict[str, Any] | None = None,
    files: dict[str, str] | None = None,
    names: list[str] = NAMES,
    url: str = URL,
    now: datetime = NOW,
) -> dict[str, Any]:
    return tls_decision(TLS | (variables or {}), files or {}, names, url, now.isoformat())


def problem(**given: Any) -> str:
    (found,) = decision(**given)["problems"]
    return str(found)


def hashes(pair: str) -> dict[str, str]:
    parts = split_pair(pair, pair)
    texts = {"tls/certificate.pem": parts["certificate"], "tls/key.pem": parts["key"]}
    return {name: sha256(text.encode()).hexdigest() for name, text in texts.items()}


def test_a_host_without_tls_has_nothing_to_decide() -> None:
    found = tls_decision({}, {}, NAMES, "http://192.0.2.11:8000", NOW.isoformat())
    assert found["enabled"] is False
    assert (found["issue"], found["secrets"], found["problems"]) == ("", {}, [])


def test_a_clean_control_machine_issues_a_certificate() -> None:
    found = decision()
    assert found["enabled"] is found["issued"] is True
    assert found["problems"] == found["notices"] == []
    assert found["issue"] == "there is none that can be used"
    assert found["keep_key"] is False
    assert found["names"] == WANTED
    assert found["secrets"] == TO_BE_ISSUED
    begin = NOW - timedelta(days=1)
    assert found["not_before"] == f"{begin:%Y%m%d%H%M%SZ}"
    assert found["not_after"] == f"{begin + timedelta(days=825):%Y%m%d%H%M%SZ}"
    assert found["authority_not_after"] == f"{begin + timedelta(days=3650):%Y%m%d%H%M%SZ}"


def test_the_names_are_those_of_the_inventory_and_more() -> None:
    found = decision(
        variables={"llm_tls_names": ["Kitchen.local", "localhost", "192.0.2.11"]},
        names=["10.0.0.7", "pi-01", "fe80::1%eth0"],
        url="https://kitchen.example:8000",
    )
    assert found["names"] == [
        *("DNS:kitchen.example", "IP:10.0.0.7", "DNS:pi-01"),
        *("DNS:kitchen.local", "DNS:localhost", "IP:192.0.2.11"),
    ]


def test_a_certificate_that_fits_is_kept() -> None:
    pair = issue(CA, WANTED)
    found = decision(files={"authority": CA, "pair": pair})
    assert found["issue"] == ""
    assert found["secrets"] == hashes(pair)
    assert found["notices"] == []


@pytest.mark.parametrize(("left", "due"), [(275.1, False), (274.9, True), (1, True), (-1, True)])
def test_it_is_renewed_in_the_last_third(left: float, due: bool) -> None:
    """Of 825 days the last third begins 275 days before the end."""
    end = NOW + timedelta(days=left)
    pair = issue(CA, WANTED, end - timedelta(days=825), 825)
    found = decision(files={"authority": CA, "pair": pair})
    assert found["issue"] == (f"it expires on {end:%Y-%m-%d}" if due else "")
    assert found["keep_key"] is True
    assert found["secrets"] == (TO_BE_ISSUED if due else hashes(pair))
    assert found["problems"] == []


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (issue(CA, ["IP:192.0.2.11"]), "the host has other names"),
        (issue(CA, [*WANTED, "DNS:gone"]), "the host has other names"),
        (issue(authority(), WANTED), "the certificate authority is another one"),
        ("half a file", "there is none that can be used"),
        (certificate_text(issue(CA, WANTED)), "there is none that can be used"),
        (key_text(new_key()) + certificate_text(issue(CA, WANTED)), "there is none that can be"),
    ],
)
def test_another_one_is_issued_where_it_does_not_fit(pair: str, reason: str) -> None:
    found = decision(files={"authority": CA, "pair": pair})
    assert found["issue"].startswith(reason)
    assert found["secrets"] == TO_BE_ISSUED


def test_a_certificate_without_its_authority_is_issued_again() -> None:
    found = decision(files={"pair": issue(CA, WANTED)})
    assert found["issue"] == "the certificate authority is another one"


def test_no_certificate_outlives_its_authority() -> None:
    end = NOW + timedelta(days=100)
    old = authority(end - timedelta(days=3650))
    found = decision(files={"authority": old})
    assert found["not_after"] == f"{end:%Y%m%d%H%M%SZ}"
    assert found["problems"] == []
    assert found["notices"] == [
        f"the certificate authority expires on {end:%Y-%m-%d}, and so do the certificates that it"
        " issues. Replace it: docs/operating.md describes the steps."
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            authority(NOW - timedelta(days=20), 10),
            f"expired on {NOW - timedelta(days=10):%Y-%m-%d}",
        ),
        (certificate_text(CA), "it has no private key in PEM format"),
        (key_text(new_key()), "it has no certificate in PEM format"),
        ("", "it has no certificate in PEM format"),
    ],
)
def test_an_authority_that_cannot_be_used_is_refused(text: str, reason: str) -> None:
    """It is never replaced without being asked: every client must get another one."""
    found = problem(files={"authority": text})
    assert found.startswith("the project's certificate authority is invalid: ")
    assert reason in found
    assert found.endswith(
        ". Restore authority.pem in .secrets/tls beside the inventory, or remove it: the next run"
        " makes another one, which clients must get."
    )


def test_an_address_that_no_certificate_can_name_is_refused() -> None:
    assert problem(url="https://[fe80::1%25eth0]:8000") == (
        "board_address is invalid: no certificate can name 'fe80::1%25eth0', as which clients reach"
        " the host. Use a host name or an IP address without a zone."
    )


def test_an_address_for_http_is_refused() -> None:
    message = (
        "board_url is invalid: 'http://192.0.2.11:8000', and with llm_tls the chat API serves HTTPS"
        " only. Use an address that begins with https://."
    )
    assert problem(url="http://192.0.2.11:8000") == message
    pair = issue(CA, WANTED)
    own = {"certificate": pair, "key": pair}
    assert problem(variables=OWN, files=own, url="http://192.0.2.11:8000") == message


def test_authorities_of_somebody_else_do_not_fit_an_issued_certificate() -> None:
    assert problem(variables={"llm_tls_ca": "/etc/ca.pem"}, files={"ca": CA}) == (
        "llm_tls_ca does not fit: the project's own authority issues the certificate. Remove"
        " llm_tls_ca, or set llm_tls_certificate and llm_tls_private_key."
    )


def test_a_certificate_of_the_operator_is_used() -> None:
    pair = issue(CA, WANTED)
    chain = certificate_text(pair) + certificate_text(CA)
    found = decision(variables=OWN, files={"certificate": chain, "key": pair, "pair": "unused"})
    assert found["problems"] == found["notices"] == found["names"] == []
    assert (found["enabled"], found["issued"], found["issue"]) == (True, False, "")
    assert split_pair(chain, pair)["certificate"] == chain
    assert found["secrets"]["tls/certificate.pem"] == sha256(chain.encode()).hexdigest()


@pytest.mark.parametrize(
    ("given", "missing", "other"),
    [
        ("llm_tls_certificate", "llm_tls_private_key", "llm_tls_certificate"),
        ("llm_tls_private_key", "llm_tls_certificate", "llm_tls_private_key"),
    ],
)
def test_a_certificate_and_its_key_are_set_together(given: str, missing: str, other: str) -> None:
    field = "certificate" if given == "llm_tls_certificate" else "key"
    found = problem(variables={given: "/etc/own.pem"}, files={field: issue(CA, WANTED)})
    assert found == (
        f"{missing} is missing: {other} is set, and a certificate needs its private key. Set both,"
        " or neither for a certificate of the project's own authority."
    )


@pytest.mark.parametrize(
    ("field", "name", "path"),
    [
        ("certificate", "llm_tls_certificate", "/etc/own.pem"),
        ("key", "llm_tls_private_key", "/etc/own.key"),
        ("ca", "llm_tls_ca", "/etc/ca.pem"),
    ],
)
def test_a_missing_file_is_named(field: str, name: str, path: str) -> None:
    pair = issue(CA, WANTED)
    files = {"certificate": pair, "key": pair, "ca": CA}
    del files[field]
    assert problem(variables=OWN | {"llm_tls_ca": "/etc/ca.pem"}, files=files) == (
        f"{name} is invalid: the control machine has no file {path}. Use the path of a PEM file."
    )


@pytest.mark.parametrize(
    ("field", "name", "path"),
    [
        ("certificate", "llm_tls_certificate", "/etc/own.pem"),
        ("ca", "llm_tls_ca", "/etc/ca.pem"),
    ],
)
def test_a_file_without_a_certificate_is_named(field: str, name: str, path: str) -> None:
    pair = issue(CA, WANTED)
    files = {"certificate": pair, "key": pair, "ca": CA} | {field: key_text(new_key())}
    assert problem(variables=OWN | {"llm_tls_ca": "/etc/ca.pem"}, files=files) == (
        f"{name} is invalid: {path}: it has no certificate in PEM format. Use a file of"
        " certificates in PEM format."
    )


SECRET = key_text(new_key())


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (SECRET, "the private key is not that of the first certificate"),
        (key_text(new_key(), "a passphrase"), "it has a passphrase"),
        (SECRET.replace("\nM", "\nX"), "its private key cannot be read"),
        (certificate_text(CA), "it has no private key in PEM format"),
    ],
)
def test_a_key_that_does_not_fit_is_refused_and_not_shown(key: str, reason: str) -> None:
    found = problem(variables=OWN, files={"certificate": issue(CA, WANTED), "key": key})
    assert found == (
        f"llm_tls_private_key is invalid: /etc/own.key: {reason}. Use the key of"
        " llm_tls_certificate, in PEM format and without passphrase."
    )
    assert SECRET.splitlines()[1] not in found


@pytest.mark.parametrize(
    ("begin", "days", "reason"),
    [
        (NOW - timedelta(days=20), 10, f"it expired on {NOW - timedelta(days=10):%Y-%m-%d}"),
        (NOW + timedelta(days=5), 90, f"it is valid from {NOW + timedelta(days=5):%Y-%m-%d} only"),
    ],
)
def test_a_certificate_of_another_time_is_refused(begin: datetime, days: int, reason: str) -> None:
    pair = issue(CA, WANTED, begin, days)
    assert problem(variables=OWN, files={"certificate": pair, "key": pair}) == (
        f"llm_tls_certificate is invalid: {reason}. Use a valid certificate, and check the control"
        " machine's clock."
    )


@pytest.mark.parametrize(
    ("names", "found"),
    [(["DNS:pi-01", "IP:192.0.2.12"], "pi-01, 192.0.2.12"), ([], "none")],
)
def test_a_certificate_for_other_names_is_refused(names: list[str], found: str) -> None:
    pair = issue(CA, names)
    assert problem(variables=OWN, files={"certificate": pair, "key": pair}) == (
        "llm_tls_certificate does not fit: clients reach the host as 192.0.2.11, and the"
        f" certificate has the names {found}. Use a certificate with that name, or set"
        " board_address to one of its names."
    )


def test_a_wildcard_fits_the_address_for_clients() -> None:
    pair = issue(CA, ["DNS:*.example.org"])
    files = {"certificate": pair, "key": pair}
    found = decision(variables=OWN, files=files, url="https://Pi.example.org:8000")
    assert found["problems"] == []


def test_a_certificate_of_the_operator_that_expires_is_noted() -> None:
    end = NOW + timedelta(days=29)
    pair = issue(CA, WANTED, end - timedelta(days=90), 90)
    found = decision(variables=OWN, files={"certificate": pair, "key": pair})
    assert found["problems"] == []
    assert found["notices"] == [
        f"llm_tls_certificate expires on {end:%Y-%m-%d}. Replace its file, and run site.yml."
    ]


def test_no_text_of_a_file_is_in_a_decision() -> None:
    pair = issue(CA, WANTED)
    for variables in (TLS, OWN):
        files = {"certificate": pair, "key": pair, "pair": pair, "authority": CA}
        found = str(decision(variables=variables, files=files))
        for text in (pair, CA):
            assert not [line for line in text.splitlines() if len(line) > 40 and line in found]


def test_a_chain_of_another_order_is_refused() -> None:
    pair = issue(CA, WANTED)
    with pytest.raises(CertificateError, match=r"^the private key is not that of the first"):
        parse_pair(certificate_text(CA) + certificate_text(pair), pair)


def test_clients_get_the_authority_without_its_key() -> None:
    files = trust_files(CA, "/keys/ca.pem", "/keys/ca-bundle.pem", "the system's\n")
    assert files == [
        {"path": "/keys/ca.pem", "content": certificate_text(CA)},
        {"path": "/keys/ca-bundle.pem", "content": certificate_text(CA) + "the system's\n"},
    ]


def test_the_bundle_of_the_system_is_not_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `make env` the shell's SSL_CERT_FILE is a file of this project."""
    (tmp_path / "env.pem").write_text("of the environment")
    (tmp_path / "system.pem").write_text("the system's")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "env.pem"))
    paths = ssl.get_default_verify_paths()._replace(openssl_cafile=str(tmp_path / "missing.pem"))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    found = (str(tmp_path / "none.pem"), str(tmp_path / "system.pem"))
    monkeypatch.setattr(certificates, "_SYSTEM_AUTHORITIES", found)
    assert system_authorities() == "the system's"
    monkeypatch.setattr(certificates, "_SYSTEM_AUTHORITIES", found[:1])
    assert system_authorities() == ""


def test_a_plan_has_the_decision(pi: dict[str, Any], catalogues: dict[str, Any]) -> None:
    given = {"llm_model": "smollm2-135m", "llm_tls": True}
    noted = decision() | {"notices": ["it expires"]}
    plan = deployment_plan(pi, "pi-01", given, catalogues, tls=noted)
    assert plan["problems"] == []
    assert plan["api"]["tls"] is True
    assert plan["url"] == "https://pi-01:8000"
    assert "it expires" in plan["known_issues"]["notices"]
    plan = deployment_plan(pi, "pi-01", {"llm_model": "smollm2-135m"}, catalogues)
    assert (plan["api"]["tls"], plan["url"]) == (False, "http://pi-01:8000")
    refused = decision() | {"problems": ["the certificate is invalid."]}
    plan = deployment_plan(pi, "pi-01", given, catalogues, tls=refused)
    assert plan["problems"] == ["pi-01: the certificate is invalid."]
