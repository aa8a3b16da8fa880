"""site.yml over a fleet without boards: what a run costs, and which hosts take part in plays."""

from __future__ import annotations

import re
import subprocess

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from tests.unit.llm_provider.scripted import Change, refusal, reply, whole

from .conftest import Fleet, answers, in_place

PLAN = "TASK [preflight : Gather the facts of the host]"


def recap(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, int]]:
    """The counts of each host at the end of a run."""
    lines = done.stdout.partition("PLAY RECAP")[2].splitlines()[1:]
    return {
        line.split()[0]: {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line)}
        for line in lines
        if "ok=" in line
    }


def in_plays(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The hosts that went through the plays."""
    included = re.search(r"gather\.yml for (.*)", done.stdout)
    return set(included[1].split(", ")) if included else set()


def test_a_fleet_in_place_costs_one_call_and_one_task_for_each_host(fleet: Fleet) -> None:
    for name in ("a", "b", "c"):
        fleet.add(name, in_place(fleet.planned))
    done = fleet.run()
    assert done.returncode == 0, done.stdout
    assert sorted(each["host"] for each in fleet.calls()) == ["a", "b", "c"]
    assert in_plays(done) == set()
    counts = recap(done)
    # The first one also has the tasks that run once: the comparison and the report.
    assert [counts[name]["ok"] for name in "abc"] == [3, 1, 1]
    assert all(sum(counts[name].values()) == counts[name]["ok"] for name in "abc")
    assert "3 of 3 hosts were as planned." in done.stdout
    assert (fleet.folder / "facts/b.json").exists()


def test_one_run_over_hosts_of_every_kind(fleet: Fleet) -> None:
    drifted, refused, absent = (in_place(fleet.planned) for _ in range(3))
    drifted["deployment"]["files"][".env"]["sha256"] = "0" * 64
    refused["board"]["root"] = False
    fleet.add("in-place", in_place(fleet.planned))
    fleet.add("without-program", absent, recorded_absent=True)
    fleet.add("down", None)
    fleet.add("drifted", drifted)
    fleet.add("refused", refused)
    done = fleet.run()
    assert done.returncode != 0
    # Here the module cannot run, so that the plays end with the first task on these hosts.
    assert in_plays(done) == {"drifted", "refused"}
    counts = recap(done)
    assert counts["down"]["unreachable"] == 1
    assert counts["in-place"]["failed"] == counts["without-program"]["failed"] == 0
    # Others that differ cost a host in place nothing.
    assert sum(counts["without-program"].values()) == counts["without-program"]["ok"] == 1
    calls = [each["host"] for each in fleet.calls()]
    assert [calls.count(name) for name in ("in-place", "without-program", "down")] == [1, 2, 1]
    said = " ".join(done.stdout.split())
    assert "differs: the release is another one, or its files were edited" in said
    assert "differs: the plan is refused; refused: " in said
    rows = done.stdout.partition("Show the fleet")[2]
    assert rows.index("down ") < rows.index("in-place ")
    assert "unreachable: Connection timed out" in " ".join(rows.split())
    assert "2 of 5 hosts were as planned." in rows


def test_a_host_that_cannot_be_read_takes_one_with_weights_along(fleet: Fleet) -> None:
    """What it needs is not known: the others of the fleet may have to give it their weights."""
    for name in ("a", "b"):
        fleet.add(name, in_place(fleet.planned))
    fleet.add("hostile", {"board": []})
    done = fleet.run()
    assert in_plays(done) == {"a", "hostile"}
    said = " ".join(done.stdout.split())
    assert "not read: it printed facts of another version" in said
    assert "needed: other hosts get weights or images from it" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"health": refusal("no", 503)}, "health: expected"),
        ({"stranger": reply({"data": []})}, "a request without a key was answered 200"),
        ({"chat": reply(whole(model="another"))}, "an answer calls its model 'another'"),
    ],
)
def test_a_chat_api_that_fails_its_verification(fleet: Fleet, change: Change, said: str) -> None:
    fleet.add("a", in_place(fleet.planned))
    fleet.answer(change)
    done = fleet.run()
    assert in_plays(done) == {"a"}
    # YAML doubles a quote within quotes.
    assert said in " ".join(done.stdout.split()).replace("''", "'")


def test_an_option_that_its_role_refuses(fleet: Fleet) -> None:
    """No role would see it: a host in place leaves the run before them."""
    fleet.add("a", in_place(fleet.planned), stack_drain_timeout="a minute")
    fleet.add("b", in_place(fleet.planned), stack_drain_timeout="60")
    done = fleet.run()
    said = " ".join(done.stdout.split())
    assert "differs: the roles refuse the values of: stack_drain_timeout" in said
    assert in_plays(done) == {"a"}
    assert recap(done)["b"]["failed"] == 0


def test_another_model_that_is_served(fleet: Fleet) -> None:
    fleet.add("a", in_place(fleet.planned))
    fleet.answer(answers(fleet.planned["plan"], model="another"))
    done = fleet.run()
    assert in_plays(done) == {"a"}
    assert "the model is another" in " ".join(done.stdout.split())


def test_layers_that_are_not_on_the_gpu(fleet: Fleet) -> None:
    facts = in_place(fleet.planned)
    facts["deployment"]["engine_log"] |= {"layers_offloaded": 0, "gpu_buffers": []}
    fleet.add("a", facts)
    done = fleet.run()
    assert in_plays(done) == {"a"}
    assert "differs: the verification failed" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    "words", [("--tags", "all,never"), ("--limit", "a"), ("--check", "--diff")]
)
def test_runs_that_compare_the_fleet(fleet: Fleet, words: tuple[str, ...]) -> None:
    for name in ("a", "b"):
        fleet.add(name, in_place(fleet.planned))
    done = fleet.run(*words)
    assert done.returncode == 0, done.stdout
    assert in_plays(done) == set()
    hosts = {"a"} if "--limit" in words else {"a", "b"}
    assert {each["host"] for each in fleet.calls()} == set(recap(done)) == hosts


@pytest.mark.parametrize(
    "words",
    [
        ("--tags", "stack"),
        ("--skip-tags", "weights"),
        ("--start-at-task", "Gather the facts of the host"),
    ],
)
def test_runs_that_leave_tasks_out_take_all_hosts_through_the_plays(
    fleet: Fleet, words: tuple[str, ...]
) -> None:
    fleet.add("a", in_place(fleet.planned))
    done = fleet.run(*words)
    assert "ok: [a -> localhost]" not in done.stdout
    assert in_plays(done) == {"a"}


def test_each_connection_has_the_options_of_its_host(fleet: Fleet) -> None:
    """Templates, encrypted values, and the password of sudo: no host gets one of another's."""
    secret = fleet.folder / "vault-password"
    secret.write_text("open sesame\n")
    key = VaultSecret(b"open sesame")
    encrypted = VaultLib().encrypt("a's own password", secret=key).decode()
    become = {"ansible_become": True, "ansible_become_user": "somebody"}
    address = {"ansible_host": "{{ inventory_hostname }}.example"}
    fleet.add(
        "a", in_place(fleet.planned), **become, **address, ansible_become_password="{{ own }}"
    )
    fleet.add("b", in_place(fleet.planned), **become, **address)
    fleet.add("c", in_place(fleet.planned), **address)
    variables = fleet.folder / "host_vars/a.yml"
    variables.parent.mkdir()
    text = encrypted.replace("\n", "\n  ")
    variables.write_text(f"own: !vault |\n  {text}\n")
    done = fleet.run("--vault-password-file", str(secret))
    assert done.returncode == 0, done.stdout
    found = {each["host"]: (each["address"], each["password"]) for each in fleet.calls()}
    assert found == {
        "a": ("a.example", "a's own password"),
        "b": ("b.example", None),
        "c": ("c.example", None),
    }
    assert ["sudo " in each["command"] for each in fleet.calls()].count(True) == 2
    assert "own password" not in done.stdout
