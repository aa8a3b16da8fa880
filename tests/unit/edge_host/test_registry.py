"""Copies of images in a registry: their references there, and what is copied."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from edge_fleet.plan.image import through_cache
from edge_host import commands
from edge_host.image_ref import ImageRef
from edge_host.registry import client as registry_client
from edge_host.registry.client import MANIFESTS, RegistryClient
from edge_host.registry.errors import RegistryError
from edge_host.registry.manifest import measure_image
from edge_host.registry.mirror import Source, mirror
from edge_host.registry.upload import upload_folder
from tests.unit.edge_host.fake_registry import FakeRegistry, digest_of, registry

__all__ = ["registry"]

DIGEST = "sha256:" + "0123456789abcdef" * 4
OLLAMA = "docker.io/ollama/ollama"
MANIFEST, _, OCI, INDEX = MANIFESTS


def manifest(*layers: bytes, kind: str | None = MANIFEST, config: bytes = b"{}") -> bytes:
    found: dict[str, Any] = {
        "schemaVersion": 2,
        "config": {"digest": digest_of(config), "size": len(config)},
        "layers": [{"digest": digest_of(each), "size": len(each)} for each in layers],
    }
    return json.dumps(found | ({"mediaType": kind} if kind else {})).encode()


def index(*manifests: bytes) -> bytes:
    entries = [{"digest": digest_of(each), "size": len(each)} for each in manifests]
    return json.dumps({"schemaVersion": 2, "manifests": entries}).encode()


def folder_of(path: Path, top: bytes, images: tuple[bytes, ...], *blobs: bytes) -> Path:
    """The layout `dir:` of skopeo."""
    path.mkdir()
    (path / "manifest.json").write_bytes(top)
    for image in images:
        (path / f"{digest_of(image)[7:]}.manifest.json").write_bytes(image)
    for blob in (*blobs, b"{}"):
        (path / digest_of(blob)[7:]).write_bytes(blob)
    return path


@pytest.fixture
def client(registry: FakeRegistry) -> RegistryClient:
    return RegistryClient(registry.path, os.getuid())


# --- the client ----------------------------------------------------------------------------------


def test_whether_a_registry_has_an_image(registry: FakeRegistry, client: RegistryClient) -> None:
    wanted = ImageRef("192.0.2.11:5000", OLLAMA, None, DIGEST)
    registry.manifests[OLLAMA, DIGEST] = ("", b"")
    assert client.has_image(wanted) is True
    assert client.has_image(wanted._replace(digest=DIGEST[:-1] + "0")) is False
    assert client.has_image(wanted._replace(repository="docker.io/ollama/other")) is False
    assert registry.asked[0] == ("HEAD", f"/v2/{OLLAMA}/manifests/{DIGEST}")
    # An index of platforms, too: without being accepted it would not be found by its digest.
    for kind in ("docker.distribution.manifest.list.v2", "oci.image.index.v1"):
        assert f"application/vnd.{kind}+json" in registry.accepted[0].split(", ")


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
def test_a_registry_that_does_not_say(
    registry: FakeRegistry, client: RegistryClient, status: int
) -> None:
    registry.status = status
    message = f"^The registry at {registry.path} does not answer: status {status} for HEAD /v2/.*"
    with pytest.raises(RegistryError, match=message):
        client.has_image(ImageRef("a", OLLAMA, None, DIGEST))


def test_a_registry_that_is_not_there(
    registry: FakeRegistry, client: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.stop()
    monkeypatch.setattr(registry_client, "_PAUSE", 0.01)
    with pytest.raises(RegistryError, match=r"Connection refused.* Check its container with"):
        client.wait_ready(0.05)


def test_a_registry_that_comes_is_waited_for(tmp_path: Path) -> None:
    late = FakeRegistry(tmp_path / "late.sock")
    client = RegistryClient(late.path, os.getuid())

    class Starts(RegistryClient):
        def _ask(self, *arguments: Any) -> Any:
            answer = None
            try:
                answer = super()._ask(*arguments)
            finally:
                if late.server is None:
                    late.start()
            return answer

    try:
        Starts(late.path, os.getuid()).wait_ready(30)
        client.wait_ready(0)
    finally:
        late.stop()


def test_nothing_is_sent_to_a_server_of_another_user(registry: FakeRegistry) -> None:
    """The registry's user can put a link to another server's socket in the socket's place."""
    other = RegistryClient(registry.path, os.getuid() + 1)
    message = rf"runs as the user {os.getuid()}, not as {os.getuid() + 1}\. Check its container"
    with pytest.raises(RegistryError, match=message):
        other.has_image(ImageRef("a", OLLAMA, None, DIGEST))
    assert registry.asked == []


# --- uploads -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "stored"), [(MANIFEST, MANIFEST), (OCI, OCI), (None, OCI)])
def test_an_image_is_uploaded_byte_by_byte(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path, kind: str, stored: str
) -> None:
    image = manifest(b"layer one", b"layer two", kind=kind)
    folder = folder_of(tmp_path / "image", image, (), b"layer one", b"layer two")
    upload_folder(client, OLLAMA, digest_of(image), folder)
    assert registry.manifests == {(OLLAMA, digest_of(image)): (stored, image)}
    assert registry.blobs == {
        (OLLAMA, digest_of(each)): each for each in (b"layer one", b"layer two", b"{}")
    }
    # The disk has each layer twice for as long as it is being uploaded.
    assert [each.name for each in folder.iterdir()] == ["manifest.json"]


def test_an_index_is_uploaded_with_all_platforms(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    amd64, arm64 = manifest(b"shared", b"amd64"), manifest(b"shared", b"arm64")
    top = index(amd64, arm64)
    blobs = (b"shared", b"amd64", b"arm64")
    folder = folder_of(tmp_path / "image", top, (amd64, arm64), *blobs)
    upload_folder(client, OLLAMA, digest_of(top), folder)
    assert registry.manifests == {
        (OLLAMA, digest_of(amd64)): (MANIFEST, amd64),
        (OLLAMA, digest_of(arm64)): (MANIFEST, arm64),
        (OLLAMA, digest_of(top)): (INDEX, top),
    }
    assert len([each for each in registry.asked if each[0] == "POST"]) == 4


def test_what_the_registry_has_is_not_uploaded(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    image = manifest(b"layer")
    registry.blobs[OLLAMA, digest_of(b"layer")] = b"layer"
    upload_folder(client, OLLAMA, digest_of(image), folder_of(tmp_path / "image", image, ()))
    assert len([each for each in registry.asked if each[0] == "POST"]) == 1


def test_layers_that_are_elsewhere_are_left_out(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    found = json.loads(manifest(b"windows"))
    found["layers"][0]["urls"] = ["https://example.com/layer"]
    image = json.dumps(found).encode()
    upload_folder(client, OLLAMA, digest_of(image), folder_of(tmp_path / "image", image, ()))
    assert list(registry.blobs) == [(OLLAMA, digest_of(b"{}"))]


def test_a_manifest_of_another_digest_is_refused(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "image", manifest(b"other"), (), b"other")
    with pytest.raises(RegistryError, match=rf"^The manifest {DIGEST} does not fit: \d+ bytes"):
        upload_folder(client, OLLAMA, DIGEST, folder)
    assert registry.asked == []


def test_a_platform_of_another_digest_is_refused(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    image = manifest(b"layer")
    folder = folder_of(tmp_path / "image", index(image), (image,), b"layer")
    (folder / f"{digest_of(image)[7:]}.manifest.json").write_bytes(manifest(b"other"))
    message = rf"^The manifest {digest_of(image)} does not fit"
    with pytest.raises(RegistryError, match=message):
        upload_folder(client, OLLAMA, digest_of(index(image)), folder)
    assert registry.asked == []


def test_a_layer_of_another_digest_is_refused_by_the_registry(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    image = manifest(b"layer")
    folder = folder_of(tmp_path / "image", image, (), b"layer")
    (folder / digest_of(b"layer")[7:]).write_bytes(b"rayel")
    with pytest.raises(RegistryError, match="status 400 for PUT"):
        upload_folder(client, OLLAMA, digest_of(image), folder)
    assert registry.manifests == {}


@pytest.mark.parametrize("digest", ["../../etc/shadow", "sha512:" + "a" * 128, "sha256:../x", 7])
def test_a_digest_that_is_none_leads_nowhere(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path, digest: object
) -> None:
    image = json.dumps({"config": {}, "layers": [{"digest": digest}]}).encode()
    folder = folder_of(tmp_path / "image", image, ())
    with pytest.raises(RegistryError, match=r"^The image's manifest is invalid: the digest "):
        upload_folder(client, OLLAMA, digest_of(image), folder)
    assert registry.asked == []


@pytest.mark.parametrize("image", [b"[]", b"none", b'{"fsLayers": []}'])
def test_a_manifest_of_another_form_is_refused(
    client: RegistryClient, tmp_path: Path, image: bytes
) -> None:
    folder = folder_of(tmp_path / "image", image, ())
    with pytest.raises(RegistryError, match=r" is invalid: it (is no JSON object|has no conf)"):
        upload_folder(client, OLLAMA, digest_of(image), folder)


def _link(path: Path, secret: Path) -> None:
    path.symlink_to(secret)


def _fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("plant", [_link, _fifo])
def test_root_follows_no_link_of_the_user_that_copies(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path, plant: Any
) -> None:
    secret = tmp_path / "shadow"
    secret.write_bytes(b"layer")
    image = manifest(b"layer")
    folder = folder_of(tmp_path / "image", image, ())
    plant(folder / digest_of(b"layer")[7:], secret)
    with pytest.raises(RegistryError, match=r"^The copied image is invalid: "):
        upload_folder(client, OLLAMA, digest_of(image), folder)
    assert registry.blobs == {}
    assert secret.read_bytes() == b"layer"


def test_root_enters_no_link_either(client: RegistryClient, tmp_path: Path) -> None:
    image = manifest(b"layer")
    folder_of(tmp_path / "elsewhere", image, (), b"layer")
    (tmp_path / "image").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        upload_folder(client, OLLAMA, digest_of(image), tmp_path / "image")


# --- copies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outside", "insecure", "verified"),
    [
        ("docker.io/ollama/ollama:0.34.0", [], "true"),
        ("docker.io/ollama/ollama:0.34.0", ["registry.example:5000"], "true"),
        ("registry.example:5000/ollama:1", ["old:1", "registry.example:5000"], "false"),
        ("registry.example/ollama:1", ["registry.example:5000"], "true"),
    ],
)
def test_copy_command(outside: str, insecure: list[str], verified: str) -> None:
    upstream = ImageRef.parse(f"{outside}@{DIGEST}")
    folder = Path("/opt/staging/x")
    source = Source("/skopeo", upstream, insecure, folder, Path("/opt/env"), 10013)
    command = source.copy_command()
    assert command[command.index("setpriv") :] == [
        *("setpriv", "--reuid=10013", "--regid=10013", "--clear-groups"),
        *("/skopeo", "copy", "--quiet", "--retry-times", "3", "--multi-arch", "all"),
        *("--preserve-digests", f"--src-tls-verify={verified}"),
        f"docker://{outside.rpartition(':')[0]}@{DIGEST}",
        "dir:/opt/staging/x/image",
    ]
    assert {
        "--property=NoNewPrivileges=yes",
        "--property=ProtectSystem=strict",
        "--property=ReadWritePaths=/opt/staging/x",
        "--property=RuntimeMaxSec=12h",
    } < set(command)
    inspect = source.inspect_command(f"sha256:{'b' * 64}")
    assert inspect[inspect.index("/skopeo") :] == [
        *("/skopeo", "inspect", "--raw", "--retry-times", "3", f"--tls-verify={verified}"),
        f"docker://{outside.rpartition(':')[0]}@sha256:{'b' * 64}",
    ]
    # The same limits, and a unit of its own.
    start = command.index("/skopeo")
    assert [each for each in inspect[:start] if each not in command] == [
        f"--unit=edge-llm-registry-inspect-{os.getpid()}-bbbbbbbbbbbb"
    ]


@pytest.mark.parametrize("outside", ["ollama/ollama:0.34.0", "registry.example:5000/engine"])
def test_what_the_plan_pulls_is_what_is_copied(
    registry: FakeRegistry, host: Host, outside: str
) -> None:
    """Both sides of one name: the plan makes it, and the registry gets it."""
    outside = f"{outside}@{host.digest}"
    reference = ImageRef.parse(through_cache(outside, "192.0.2.11"))
    assert reference.registry == "192.0.2.11:5000"
    assert host.mirror([{"reference": str(reference), "outside": outside}]) == [outside]
    assert (reference.repository, host.digest) in registry.manifests


class Host:
    """A host whose systemd-run and setpriv run what they are given, and whose skopeo copies."""

    def __init__(self, folder: Path, registry: FakeRegistry) -> None:
        self.folder, self.socket = folder, registry.path
        self.staging = folder / "staging"
        self.staging.mkdir()
        image = manifest(b"layer")
        self.digest = digest_of(image)
        source = folder_of(folder / "source", image, (), b"layer")
        self.log = folder / "log"
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("systemd-run", "setpriv"):
            self.command(name, 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"')
        # By the digest at the end of its name.
        self.inspects = (
            f'if [ "$1" = inspect ]; then for last; do :; done; digest="${{last##*:}}"\n'
            f"found={source}/$digest.manifest.json\n"
            f'[ -e "$found" ] || found={source}/manifest.json\n'
            f'cat "$found"; exit; fi\n'
        )
        self.command(
            "skopeo",
            f'{self.inspects}echo "$*" >> {self.log}\n'
            f"cat {self.staging}/environment >> {self.log}.env\n"
            f'for last; do :; done; cp -r {source} "${{last#dir:}}"',
        )

    def command(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def mirror(self, images: list[dict[str, str]]) -> list[str]:
        return mirror(self.socket, self.staging, os.getuid(), images, [])

    def images(self, *names: str) -> list[dict[str, str]]:
        return [
            {
                "reference": f"192.0.2.11:5000/docker.io/{name}@{self.digest}",
                "outside": f"{name}@{self.digest}",
            }
            for name in names
        ]

    @property
    def copied(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def host(tmp_path: Path, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path, registry)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(commands, "SEARCH_PATH", str(made.bin))
    return made


def test_what_the_registry_lacks_is_copied_once(registry: FakeRegistry, host: Host) -> None:
    registry.manifests["docker.io/a/there", host.digest] = ("", b"")
    images = host.images("a/there", "a/new", "a/new")
    assert host.mirror(images) == [f"a/new@{host.digest}"]
    (line,) = host.copied
    assert f"docker://docker.io/a/new@{host.digest} dir:{host.staging}/" in line
    assert ("docker.io/a/new", host.digest) in registry.manifests
    assert list(host.staging.iterdir()) == []
    assert host.mirror(images) == []


def test_nothing_is_asked_where_nothing_is_wanted(registry: FakeRegistry, host: Host) -> None:
    assert host.mirror([]) == []
    assert registry.asked == []


def test_a_copy_that_fails(registry: FakeRegistry, host: Host) -> None:
    (host.staging / "left").mkdir()
    host.command("skopeo", host.inspects + 'echo "no such host" >&2; exit 1')
    with pytest.raises(RegistryError) as caught:
        host.mirror(host.images("a/new"))
    assert str(caught.value) == (
        f"The image a/new@{host.digest} could not be copied into the registry: no such host"
    )
    assert registry.manifests == {}
    # Neither its own remains nor those of a run that was killed take the disk.
    assert list(host.staging.iterdir()) == []


def test_an_image_that_cannot_be_measured(registry: FakeRegistry, host: Host) -> None:
    host.command("skopeo", 'echo "no such host" >&2; exit 1')
    with pytest.raises(RegistryError, match=r"copied into the registry: no such host$"):
        host.mirror(host.images("a/new"))
    host.command("skopeo", "echo {}")
    with pytest.raises(RegistryError, match=rf"^The manifest {host.digest} does not fit: 3 bytes"):
        host.mirror(host.images("a/new"))
    assert host.copied == []


def test_an_image_that_the_disk_has_no_space_for(
    registry: FakeRegistry, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is copied. The image has 7 bytes, and its largest blob, of 5, is there twice."""
    free = 11
    monkeypatch.setattr("edge_host.disk.free_space", lambda _: free)
    with pytest.raises(RegistryError) as caught:
        host.mirror(host.images("a/new"))
    assert str(caught.value) == (
        f"The image a/new@{host.digest} does not fit: the disk of {host.staging} is too small:"
        " 0.0 MiB are still to be copied, and 0.0 MiB are free beside the reserve of 512 MiB. Free"
        " some space, and run site.yml again."
    )
    assert host.copied == []
    assert registry.manifests == {}
    assert list(host.staging.iterdir()) == []
    free = 12
    assert host.mirror(host.images("a/new")) == [f"a/new@{host.digest}"]


def test_the_size_of_an_image_with_platforms() -> None:
    """What they share counts once."""
    amd64, arm64 = manifest(b"shared", b"amd64..."), manifest(b"shared", b"arm64")
    top = index(amd64, arm64, amd64)
    texts = {digest_of(each): each for each in (top, amd64, arm64)}
    sizes = [len(each) for each in (b"shared", b"amd64...", b"arm64", b"{}")]
    assert measure_image(texts.__getitem__, digest_of(top)) == (sum(sizes), 8)
    assert measure_image(texts.__getitem__, digest_of(arm64)) == (13, 6)


@pytest.mark.parametrize("size", [None, "5", -1, True, 1.5])
def test_a_size_that_is_none(size: object) -> None:
    found = json.loads(manifest(b"layer"))
    found["layers"][0]["size"] = size
    image = json.dumps(found).encode()
    with pytest.raises(RegistryError, match=r"^The image's manifest is invalid: the size "):
        measure_image({digest_of(image): image}.__getitem__, digest_of(image))


def test_too_many_platforms() -> None:
    top = index(*(manifest(b"%d" % each) for each in range(101)))
    with pytest.raises(
        RegistryError, match=r"it has 101 platforms\. Use an image with 100 at most"
    ):
        measure_image({digest_of(top): top}.__getitem__, digest_of(top))


def test_a_copy_that_is_killed(host: Host) -> None:
    """As at its time limit: skopeo says nothing."""
    host.command("skopeo", f"{host.inspects}exit 143")
    with pytest.raises(RegistryError, match=r" registry: skopeo ended with status 143$"):
        host.mirror(host.images("a/new"))


def test_a_host_without_skopeo(host: Host) -> None:
    (host.bin / "skopeo").unlink()
    with pytest.raises(RegistryError, match=r"^skopeo is missing on the host\. Install it\.$"):
        host.mirror(host.images("a/new"))


def test_skopeo_gets_the_way_and_logins_and_nothing_else(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", 'http://user:p"\\w@proxy:3128')
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD", "secret")
    (host.folder / ".docker").mkdir()
    (host.folder / ".docker/config.json").write_text('{"auths": {}}')
    seen = host.folder / "seen"
    host.command("skopeo", f"{host.inspects}cp {host.staging}/*/logins.json {seen}; exit 1")
    with pytest.raises(RegistryError):
        host.mirror(host.images("a/new"))
    assert seen.read_text() == '{"auths": {}}'
    host.command("skopeo", f"{host.inspects}cp {host.staging}/environment {seen}; exit 1")
    with pytest.raises(RegistryError):
        host.mirror(host.images("a/new"))
    names = [line.partition("=")[0] for line in seen.read_text().splitlines()]
    assert set(names) - set(os.environ) == {"REGISTRY_AUTH_FILE"}
    assert "ANSIBLE_VAULT_PASSWORD" not in names
    assert 'HTTPS_PROXY="http://user:p\\"\\\\w@proxy:3128"' in seen.read_text().splitlines()
    assert seen.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("outside", "message"),
    [
        ("Python", r"^The image reference is invalid: 'Python'\. Use \["),
        ("python:3", r"^The image reference has no digest: 'python:3'\. Use NAME@sha256:DIGEST\.$"),
    ],
)
def test_what_cannot_be_copied(host: Host, outside: str, message: str) -> None:
    images = [{"reference": f"a:1/python@{DIGEST}", "outside": outside}]
    with pytest.raises(RegistryError, match=message):
        host.mirror(images)
    assert host.copied == []


def test_a_socket_that_nobody_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_host.registry.mirror.READY_SECONDS", 0.0)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "left.sock"))
    left.close()
    images = [{"reference": f"a:1/python@{DIGEST}", "outside": f"python@{DIGEST}"}]
    with pytest.raises(RegistryError, match="Connection refused"):
        mirror(tmp_path / "left.sock", tmp_path, os.getuid(), images, [])
