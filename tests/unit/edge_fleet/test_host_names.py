"""Which names and addresses a certificate can have, and which of them stand for a host."""

from __future__ import annotations

import pytest

from edge_fleet.host_names import covers, subject_name, subject_names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pi-01", "DNS:pi-01"),
        ("Kitchen.Local", "DNS:kitchen.local"),
        ("kitchen.example.", "DNS:kitchen.example"),
        ("pi_01", "DNS:pi_01"),
        ("*.example.org", "DNS:*.example.org"),
        ("192.0.2.11", "IP:192.0.2.11"),
        ("2001:DB8::0:11", "IP:2001:db8::11"),
        ("[2001:db8::11]", "IP:2001:db8::11"),
        ("fe80::1%eth0", None),
        ("192.0.2.300", None),
        ("192.0.2", None),
        ("a.*.org", None),
        ("-kitchen", None),
        ("kitchen..local", None),
        ("two words", None),
        ("küche", None),
        ("a/b", None),
        ("", None),
        ("a" * 64, None),
        (".".join(["a" * 60] * 5), None),
    ],
)
def test_names_of_hosts(text: str, name: str | None) -> None:
    assert subject_name(text) == name


def test_names_that_no_certificate_can_have_are_left_out() -> None:
    found = subject_names(["192.0.2.11", "pi-01", "fe80::1%eth0", "PI-01", "192.0.2.11"])
    assert found == ("IP:192.0.2.11", "DNS:pi-01")


@pytest.mark.parametrize(
    ("names", "wanted", "covered"),
    [
        (["DNS:pi-01", "IP:192.0.2.11"], "IP:192.0.2.11", True),
        (["DNS:192.0.2.11"], "IP:192.0.2.11", False),
        (["DNS:*.example.org"], "DNS:pi.example.org", True),
        (["DNS:*.example.org"], "DNS:a.pi.example.org", False),
        (["DNS:*.example.org"], "DNS:example.org", False),
        (["DNS:*.local"], "DNS:pi.local", False),
        (["DNS:pi.example.org"], "DNS:pi.example", False),
        ([], "DNS:pi-01", False),
    ],
)
def test_a_wildcard_stands_for_one_label(names: list[str], wanted: str, covered: bool) -> None:
    assert covers(names, wanted) is covered
