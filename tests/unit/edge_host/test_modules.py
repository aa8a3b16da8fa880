"""Modules and actions as Ansible runs them: packed, sent, and started by the host's Python."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from edge_host.folders import secret_access
from tests.unit.plugin_docs import PROJECT, differences, missing

CONTENT = b"GGUF weights of a model"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def ansible(module: str, arguments: dict[str, Any], *options: str) -> dict[str, Any]:
    """Run a module on this machine with the project's configuration: its result.

    A result is as RETURN of the module describes it.
    """
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible"),
            "localhost",
            "--inventory=localhost,",
            "--connection=local",
            f"--extra-vars=ansible_python_interpreter={sys.executable}",
            f"--module-name={module}",
            f"--args={json.dumps(arguments)}",
            *options,
        ],
        cwd=PROJECT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
            "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            # From ansible-core 2.21 on a result holds its arguments by choice alone.
            "ANSIBLE_INJECT_INVOCATION": "true",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        result = json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"]["localhost"]
    except (ValueError, KeyError, IndexError):
        raise AssertionError(done.stdout + done.stderr) from None
    assert isinstance(result, dict)
    result.pop("action", None)  # the callback's
    if not result.get("failed"):
        assert differences(module, result) == []
    return result


def test_host_info(tmp_path: Path) -> None:
    secret = tmp_path / "secrets/api_keys"
    secret.parent.mkdir()
    secret.write_text("key\n")
    secret.chmod(0o640)
    os.chown(secret, *secret_access("api_keys")[:2])
    expected = hashlib.sha256(b"key\n").hexdigest()
    result = ansible(
        "host_info",
        {"root": str(tmp_path), "ports": [8000, 11434], "secrets": {"api_keys": expected}},
        "--check",
    )
    assert result["changed"] is False
    assert result["state"]["deployment"]["secrets"] == {"api_keys": True}
    assert list(result["state"]["ports"]) == ["8000", "11434"]
    assert result["state"]["board"]["disk"]["path"] == str(tmp_path)
    # The hash of a weak secret tells it; Ansible repeats a module's arguments in its result.
    assert result["invocation"]["module_args"]["secrets"] != {"api_keys": expected}
    assert expected not in json.dumps(result)


def test_host_audit_info(tmp_path: Path) -> None:
    """As root; another user would see too little."""
    (tmp_path / "secrets").mkdir()
    folders = {"root": str(tmp_path), "registry_root": str(tmp_path / "none")}
    result = ansible("host_audit_info", folders, "--check")
    if os.geteuid():
        assert result["msg"].startswith("The audit needs root on the host: ")
        return
    assert result["changed"] is False
    paths = [str(tmp_path), str(tmp_path / "secrets")]
    assert [each["path"] for each in result["audit"]["files"]] == paths


def test_host_info_refuses(tmp_path: Path) -> None:
    result = ansible("host_info", {"root": str(tmp_path), "secrets": {"../x": ""}})
    assert result["failed"] is True
    assert result["msg"].startswith("The name of a file in secrets is invalid: '../x'. Use")


def test_model_store(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(CONTENT)
    weights = {"file": "m.gguf", "size": str(len(CONTENT)), "sha256": SHA256}
    offered = {**weights, "name": "m", "family": "llama", "quantization": "Q4_1"}
    arguments = {"root": str(tmp_path), "files": [weights], "ollama": [offered]}
    check = ansible("model_store", arguments, "--check", "--diff")
    assert check["changed"] is True
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]
    done = ansible("model_store", arguments, "--diff")
    assert done["actions"] == check["actions"]
    assert done["diff"]["after"].splitlines() == done["actions"]
    assert (tmp_path / f"ollama/blobs/sha256-{SHA256}").samefile(tmp_path / "m.gguf")
    again = ansible("model_store", arguments, "--diff")
    assert again["changed"] is False
    assert "diff" not in again
    assert missing("model_store", [done]) == []


def test_model_store_refuses(tmp_path: Path) -> None:
    arguments = {"root": str(tmp_path), "files": [{"file": "m", "size": 1, "sha256": "0" * 64}]}
    result = ansible("model_store", arguments)
    assert result["failed"] is True
    assert result["msg"] == (f"{tmp_path}/m is missing. Run site.yml, which downloads it")


def test_release_tells_in_a_check_run_what_would_change(tmp_path: Path) -> None:
    asked = {
        "root": str(tmp_path),
        "host": "pi",
        "operator": "alice",
        "compose": "a",
        "env": "b",
        "program": "/not/used.pyz",
    }
    result = ansible("release", asked, "--check", "--diff")
    assert result["changed"] is True
    assert [each["after"] for each in result["diff"]] == ["a", "b"]
    assert list(tmp_path.iterdir()) == []


def test_release_refuses_to_go_back_where_there_is_nothing(tmp_path: Path) -> None:
    asked = {
        "root": str(tmp_path),
        "host": "pi",
        "operator": "alice",
        "action": "rollback",
        "program": "/not/used.pyz",
    }
    result = ansible("release", asked)
    assert result["failed"] is True
    assert result["msg"] == (
        "pi: the previous release is missing on the host: it has no release. Choose another"
        " release,"
        " or run site.yml."
    )


def test_host_program(tmp_path: Path) -> None:
    """It is put there once, a check run puts none there, and Python runs it as it is."""
    asked = {"folder": str(tmp_path / "lib")}
    first = ansible("host_program", asked, "--check")
    assert first["changed"] is True
    assert list(tmp_path.iterdir()) == []
    for changed in (True, False):
        result = ansible("host_program", asked)
        assert result["changed"] is changed
        assert [str(path) for path in (tmp_path / "lib").iterdir()] == [result["path"]]
        assert missing("host_program", [result]) == []
    done = subprocess.run(
        [sys.executable, "-I", result["path"], "stat"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        2, "usage: edge_host change|download|recover|registry|sockets|state ...\n"
    )  # fmt: skip


def test_host_units(tmp_path: Path) -> None:
    """A check run names and shows what would be installed, and writes nothing."""
    program = {"program": str(tmp_path / "lib/edge_host-1.pyz")}
    asked = {"root": str(tmp_path), "host": "pi", "operator": "alice", **program}
    result = ansible("host_units", asked, "--check", "--diff")
    assert result["changed"] is True
    assert result["differences"]["edge_host-1.pyz"] == "missing"
    shown = {each["after_header"]: each["after"] for each in result["diff"]}
    assert program["program"] in shown["/etc/systemd/system/edge-llm.service"]
    assert list(tmp_path.iterdir()) == []
    refused = ansible("host_units", asked)
    assert refused["msg"] == f"pi: {program['program']} is missing. Run site.yml."
    refused = ansible("host_units", {"host": "pi"})
    assert (
        refused["msg"] == "of is deployment but all of the following are missing: operator, program"
    )
    facts = ansible("host_info", {"root": str(tmp_path), **program}, "--check")
    assert facts["state"]["deployment"]["installed"] == result["differences"]


def test_host_units_of_the_clocks() -> None:
    result = ansible("host_units", {"of": "clocks", "host": "pi"}, "--check", "--diff")
    assert list(result["differences"]) == ["edge-llm-clocks.service"]
    (shown,) = result["diff"]
    assert "ExecStart=/usr/bin/jetson_clocks" in shown["after"]


def test_control_files(tmp_path: Path) -> None:
    """Each is whole, and its owner's alone where it is secret; a check run writes none."""
    key, facts = tmp_path / "keys/pi.env", tmp_path / "facts/pi.json"
    asked = [
        {"path": str(key), "content": "KEY=1\n", "secret": True},
        {"path": str(facts), "content": "{}\n"},
    ]
    result = ansible("control_files", {"files": asked}, "--check")
    assert result["changed"] is True
    assert not key.parent.exists()
    result = ansible("control_files", {"files": asked})
    assert result["written"] == [str(key), str(facts)]
    assert missing("control_files", [result]) == []
    assert [path.read_text() for path in (key, facts)] == ["KEY=1\n", "{}\n"]
    assert [path.stat().st_mode & 0o777 for path in (key, facts)] == [0o600, 0o644]
    assert [path.parent.stat().st_mode & 0o777 for path in (key, facts)] == [0o700, 0o755]
    key.chmod(0o644)
    assert ansible("control_files", {"files": asked})["written"] == [str(key)]
    assert key.stat().st_mode & 0o777 == 0o600
    assert ansible("control_files", {"files": asked})["changed"] is False


def test_model_fetch_shows_its_message_once(tmp_path: Path) -> None:
    """Of a download that is gone. Ansible adds the cause of an exception to its message."""
    job = {"name": "smoke.gguf-000000000000", "files": []}
    result = ansible("model_fetch", {"state": "finished", "job": job, "folder": str(tmp_path)})
    assert result["failed"] is True
    assert result["msg"].count("the download was killed") == 1


def test_model_source_info(tmp_path: Path) -> None:
    """Of a folder; a check run reads as well."""
    file = {"name": "m.gguf", "path": "m.gguf", "size": len(CONTENT), "sha256": SHA256}
    place = {"folder": str(tmp_path), "place": "owner/name/resolve/1/m.gguf"}
    job = {"name": "m.gguf-1", "mode": "source", "files": [file | place]}
    result = ansible("model_source_info", {"job": job}, "--check")
    assert result["changed"] is False
    assert result["problem"] == (
        f"{tmp_path}/m.gguf is missing. Copy the file into the folder of llm_models_mirror"
    )
    (tmp_path / "m.gguf").write_bytes(CONTENT)
    result = ansible("model_source_info", {"job": job, "token": "hf_secret"})
    assert result["problem"] is None
    assert "hf_secret" not in json.dumps(result)
    assert missing("model_source_info", [result]) == []


def test_chat_api_bundle(tmp_path: Path) -> None:
    arguments = {
        "project": str(PROJECT),
        "cache": str(tmp_path / "cache"),
        "base_image": "docker.io/library/python",
        "architecture": "arm64",
    }
    result = ansible("chat_api_bundle", arguments, "--check")
    assert result["image"] == f"edge-llm/chat-api:{result['version']}"
    assert missing("chat_api_bundle", [result]) == []


def mirroring(folder: Path, *images: dict[str, str]) -> dict[str, Any]:
    arguments = {"socket": str(folder / "none.sock"), "staging": str(folder), "images": images}
    return ansible("image_mirror", arguments)


def test_image_mirror(tmp_path: Path) -> None:
    result = mirroring(tmp_path)
    assert result["changed"] is False
    assert missing("image_mirror", [result]) == []


def test_image_mirror_refuses(tmp_path: Path) -> None:
    result = mirroring(tmp_path, {"reference": "a@sha256:0", "outside": "a"})
    assert result["failed"] is True
    assert result["msg"].startswith("The image reference is invalid: 'a@sha256:0'. Use ")


def test_registry_port() -> None:
    arguments = {
        "state": "open",
        "program": "/p",
        "socket": "/s",
        "hosts": ["127.0.0.1", "kitchen.invalid"],
    }
    result = ansible("registry_port", arguments, "--check")
    assert (result["changed"], result["addresses"]) == (True, ["127.0.0.1"])
    assert missing("registry_port", [result]) == []
    (warning,) = result["warnings"]
    assert "The address of kitchen.invalid is missing: this host cannot resolve the name" in str(
        warning
    )
    assert ansible("registry_port", {"state": "absent"}, "--check")["changed"] is False
    refused = ansible("registry_port", {"state": "open"})
    assert refused["msg"] == "state is open but all of the following are missing: program, socket"
