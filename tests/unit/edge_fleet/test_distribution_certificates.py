"""Certificates of one distribution: who gets which, and what they say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509

from edge_fleet.certificates import parse_certificate, parse_pair
from edge_fleet.distribution_certificates import distribution_credentials

NOW = datetime(2026, 12, 1, 10, 0, tzinfo=UTC)


def job(identity: str, distribution: str = "m/0", alone: bool = False) -> dict[str, Any]:
    return {
        "identity": identity,
        "distribution": distribution,
        "predecessors": [],
        "successors": [] if alone else ["host-9"],
    }


def made() -> dict[str, Any]:
    distribution = {
        "jobs": {
            "a": {"m": job("host-1"), "n": job("host-0", "n/0")},
            "b": {"m": job("host-2")},
            "c": {"m": job("host-0", "m/1", alone=True)},
        },
        "control": {"a": {"m": job("host-0")}},
    }
    return distribution_credentials(distribution, NOW)


def test_each_job_that_has_to_do_with_others_has_a_certificate() -> None:
    found = made()
    assert {name: list(some) for name, some in found["jobs"].items()} == {
        "a": ["m", "n"],
        "b": ["m"],
    }
    assert {name: list(some) for name, some in found["control"].items()} == {"a": ["m"]}
    keys = [
        each["key"] for hosts in found.values() for some in hosts.values() for each in some.values()
    ]
    assert len(set(keys)) == len(keys) == 4
    assert found["jobs"]["a"]["m"]["planned_at"] == NOW.timestamp()


def test_each_distribution_has_an_authority_of_its_own() -> None:
    found = made()
    first, other = (found["jobs"]["a"][name] for name in ("m", "n"))
    assert first["authority"] == found["jobs"]["b"]["m"]["authority"]
    assert first["authority"] == found["control"]["a"]["m"]["authority"]
    own, foreign = (parse_certificate(each["authority"]) for each in (first, other))
    certificate = parse_pair(first["certificate"], first["key"]).certificate
    assert certificate.issued_by(own)
    assert not certificate.issued_by(foreign)
    # The next run has others.
    again = parse_certificate(made()["jobs"]["a"]["m"]["authority"])
    assert not certificate.issued_by(again)


def test_a_certificate_names_a_place_for_a_day() -> None:
    found = made()["jobs"]["b"]["m"]
    certificate = parse_certificate(found["certificate"])
    assert certificate.names == ("DNS:host-2",)
    assert certificate.not_after == NOW + timedelta(hours=24)
    assert certificate.not_before <= NOW
    extensions = certificate.parsed.extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    authority = parse_certificate(found["authority"])
    constraints = authority.parsed.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    assert authority.not_after == NOW + timedelta(hours=24)


def test_the_key_of_the_authority_is_nowhere() -> None:
    found = made()["jobs"]["a"]["m"]
    assert found["authority"].count("PRIVATE KEY") == found["certificate"].count("PRIVATE KEY") == 0
    assert found["key"].count("BEGIN PRIVATE KEY") == 1
