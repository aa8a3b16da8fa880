"""The inventory variables of the chat API: keys, names, limits, browsers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from edge_fleet.client_keys import ClientKey, parse_client_keys
from edge_fleet.setting_types import (
    KEY_ADVICE,
    Advice,
    Boolean,
    FilePath,
    HostNames,
    InvalidPartError,
    Key,
    ListenAddress,
    Names,
    Networks,
    Origins,
    Seconds,
    WholeNumber,
    field_advice,
    field_bounds,
    hidden,
    variable,
)
from edge_fleet.text import did_you_mean
from edge_host.constants import KIB, MIB

_MOST = 10**15 - 1


def _count(default: int, example: int, description: str) -> Any:
    return variable(default, example, description, ge=1, le=_MOST)


def _seconds(default: float, example: float, description: str) -> Any:
    return variable(default, example, description, gt=0, allow_inf_nan=False)


class Limits(BaseModel):
    """The keys of `llm_limits`, with the defaults of the chat API."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    max_request_line_bytes: WholeNumber = _count(
        8 * KIB, 16 * KIB, "Method, path and query of a request."
    )
    max_header_bytes: WholeNumber = _count(
        32 * KIB, 64 * KIB, "All headers of a request, with the line before them."
    )
    max_headers: WholeNumber = _count(100, 200, "Headers of a request.")
    header_seconds: Seconds = _seconds(
        15.0, 30.0, "From the first byte of a request to the end of its headers."
    )
    first_byte_seconds: Seconds = _seconds(
        30.0, 10.0, "How long a connection that never sends a byte stays open."
    )
    keep_alive_seconds: Seconds = _seconds(
        75.0, 300.0, "How long a connection stays open between requests."
    )
    max_connections: WholeNumber = _count(512, 1024, "Connections at the same time.")
    max_connections_per_address: WholeNumber = _count(
        128, 16,
        "Connections of one IPv4 address, or one IPv6 network of 64 bits. `llm_trusted_proxies` are"
        " exempt.",
    )  # fmt: skip
    max_body_bytes: WholeNumber = _count(
        4 * MIB, 8 * MIB, "The body of a request; 20971520 for a model with vision."
    )
    body_seconds: Seconds = _seconds(120.0, 600.0, "From the first to the last byte of a body.")
    max_queued_body_bytes: WholeNumber = _count(
        48 * MIB, 32 * MIB,
        "All bodies that are in memory at the same time; 134217728 for a model with vision.",
    )  # fmt: skip


def _limits(value: object) -> Limits:
    if not isinstance(value, dict):
        raise ValueError("no mapping")
    try:
        return Limits.model_validate(value)
    except ValidationError as error:
        found = map(_invalid_limit, error.errors(include_url=False))
        raise InvalidPartError(" ".join(found)) from error


def _invalid_limit(error: ErrorDetails) -> str:
    name, value = str(error["loc"][0]), error["input"]
    if name not in Limits.model_fields:
        hint = did_you_mean(name, Limits.model_fields)
        return f"{name!r} is no limit.{hint} docs/variables.md lists the limits."
    field = Limits.model_fields[name]
    return f"{name} is {value!r}. {field_advice(field).text}{field_bounds(field)}."


class ChatApiSettings(BaseModel):
    """The variables of the chat API."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    llm_api_key: Key | None = variable(
        None, "{{ vault_llm_api_key }}",
        "The key that clients send, 16 characters or more; its name in logs and metrics is"
        " `default`. Keep it in Ansible Vault.",
        "generated for each host, kept in .secrets/ beside the inventory", repr=False,
    )  # fmt: skip
    llm_api_keys: Annotated[
        tuple[ClientKey, ...],
        BeforeValidator(parse_client_keys),
        Advice(
            "Use a list of keys, or a mapping of name to key or to {key, expires,"
            f" requests_per_minute, burst, share}}; a key has {KEY_ADVICE}",
            hidden,
        ),
    ] = variable(
        (),
        {
            "kitchen": "{{ vault_key_of_the_kitchen }}",
            "guests": {
                "key": "{{ vault_key_of_guests }}",
                "expires": "2027-01-01",
                "requests_per_minute": 30,
                "share": 0.5,
            },
        },
        "Further keys that clients may send: one for each client, or the previous `llm_api_key`"
        " while clients change. A changed key is valid without a restart."
        " [Names, expiry, rates and shares]"
        "(operating.md#how-do-i-give-each-client-its-own-key).",
        repr=False,
    )  # fmt: skip
    llm_model_aliases: Names = variable(
        [], ["gpt-4o-mini"],
        "Other names by which clients may request the model. A request without a name, or with the"
        " name `default`, always gets the served model.",
    )  # fmt: skip
    llm_cors_origins: Origins = variable(
        [], ["https://chat.example", "http://localhost:3000"],
        "Origins of pages that may use the chat API from a browser (CORS).",
    )  # fmt: skip
    llm_api_docs: Boolean = variable(
        False, True, "Whether the chat API serves a page with its routes at /docs."
    )
    llm_strict: Boolean = variable(
        False, True,
        "Whether a request is refused that has a parameter which the engine would ignore. Otherwise"
        " parameters without effect on the meaning of an answer are dropped, and named in a header"
        " of the answer.",
    )  # fmt: skip
    llm_image_tokens: WholeNumber | None = variable(
        None, 256,
        "Tokens that an image in a request counts as in the admission queue. Use the figure of the"
        " served model.",
        "1024", ge=1, le=1_000_000,
    )  # fmt: skip
    llm_listen_address: ListenAddress | None = variable(
        None, "192.0.2.10",
        "The address of the host at which the chat API listens, IPv4 or IPv6. With the loopback"
        " address 127.0.0.1, a server on the host itself passes requests on, and `board_url` is its"
        " address.",
        "all addresses of the host",
    )  # fmt: skip
    llm_allowed_networks: Networks = variable(
        [], ["192.0.2.0/24", "2001:db8::/32"],
        "Addresses and networks whose clients the chat API serves; connections from elsewhere are"
        " closed at once. They must include the control machine, which verifies the host. The host"
        " itself is always served. An empty list means all.",
    )  # fmt: skip
    llm_trusted_proxies: Networks = variable(
        [], ["192.0.2.10"],
        "Addresses and networks of proxies, which send the requests of many clients: they are"
        " exempt from the limit of connections per address.",
    )  # fmt: skip
    llm_limits: Annotated[
        Limits, BeforeValidator(_limits), Advice("Use a mapping of limit to value")
    ] = variable(
        Limits(), {"max_connections": 1024},
        "Limits of the chat API, each a number above 0. Sizes are bytes, times are seconds.",
        "those of the table",
    )  # fmt: skip
    llm_tls: Boolean = variable(
        False, True,
        "Whether the chat API serves HTTPS instead of HTTP, at the same port. The certificate is"
        " `llm_tls_certificate`, or is issued by the project's certificate authority in"
        " .secrets/tls/ beside the inventory and renewed by site.yml.",
    )  # fmt: skip
    llm_tls_certificate: FilePath | None = variable(
        None, "/etc/ssl/kitchen.pem",
        "A file of the control machine with the host's certificate and those of its issuers (PEM).",
        "issued by the project's certificate authority",
    )  # fmt: skip
    llm_tls_private_key: FilePath | None = variable(
        None, "/etc/ssl/private/kitchen.key",
        "A file of the control machine with the private key of `llm_tls_certificate` (PEM, without"
        " passphrase; Ansible Vault may encrypt the file).",
        "generated for each host",
    )  # fmt: skip
    llm_tls_ca: FilePath | None = variable(
        None, "/etc/ssl/our-ca.pem",
        "A file of the control machine with the certificate authorities (PEM) by which clients and"
        " the verification trust `llm_tls_certificate`.",
        "the project's certificate authority; the system's for `llm_tls_certificate`",
    )  # fmt: skip
    llm_tls_names: HostNames = variable(
        [], ["kitchen.local", "localhost"],
        "Further names and addresses that an issued certificate has. It always has the inventory"
        " name, `ansible_host` and `board_address`.",
    )  # fmt: skip
    llm_tls_days: WholeNumber = variable(
        825, 90,
        "Days for which an issued certificate is valid. A run of site.yml in the last third renews"
        " it. Apple's systems trust none that is valid for more than 825 days.",
        ge=1, le=825,
    )  # fmt: skip
