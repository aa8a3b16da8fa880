"""What the weights role hands to a host: the token, and the keys of a distribution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

TASKS = Path(__file__).parents[3] / "roles/weights/tasks"


def tasks(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((TASKS / name).read_text())
    return found


def on_the_host() -> dict[str, str]:
    """The options of the module on the host, as templates."""
    (found,) = (
        task["model_fetch"]
        for task in tasks("run_job.yml")
        if "model_fetch" in task and "delegate_to" not in task
    )
    assert isinstance(found, dict)
    return found


def rendered(option: str, job: dict[str, Any], final: bool = False) -> str:
    credentials = {"jobs": {"a": {"m": "the key of a", "n": "x"}, "b": {"m": "the key of b"}}}
    text: str = jinja2.Template(on_the_host()[option]).render(
        inventory_hostname="a", item="m", __weights_jobs={"m": job}, weights_final=final,
        weights_credentials=credentials, weights_token="the token", weights_proxy="the proxy",
        weights_authorities="the authorities",
    )  # fmt: skip
    return text.strip()


@pytest.mark.parametrize("token", [True, False])
@pytest.mark.parametrize("source", [True, False])
def test_a_host_gets_what_its_part_needs(token: bool, source: bool) -> None:
    job = {"token": token, "source": source, "mode": "peers"}
    assert rendered("token", job) == ("the token" if token else "")
    assert rendered("proxy", job) == ("the proxy" if source else "")
    assert rendered("ca_certificates", job) == ("the authorities" if source else "")
    assert rendered("credentials", job) == "the key of a"


@pytest.mark.parametrize(
    ("mode", "final", "optional"),
    [
        ("source", False, "False"),
        ("source", True, "False"),
        ("peers", False, "True"),
        ("peers", True, "False"),
        ("share", False, "True"),
        ("share", True, "True"),
    ],
)
def test_who_got_nothing_from_others_has_another_attempt(
    mode: str, final: bool, optional: str
) -> None:
    assert rendered("optional", {"mode": mode}, final) == optional


def test_private_keys_are_not_shown_and_do_not_stay() -> None:
    made, *_, forgotten = (
        task
        for task in tasks("distribute.yml")
        if "weights_credentials" in task.get("ansible.builtin.set_fact", {})
    )
    assert made["no_log"] is True
    assert forgotten["ansible.builtin.set_fact"]["weights_credentials"] == {
        "jobs": {},
        "control": {},
    }
    assert tasks("distribute.yml")[-1] == forgotten
