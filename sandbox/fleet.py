"""The sandbox as a whole: bring it up, take it down, say what is there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial

from sandbox import authority, boards, docker, engine, images, models, ollama, services, source
from sandbox.errors import SandboxError
from sandbox.images import Image
from sandbox.instance import CACHE, HOSTS, INSTANCES, LOGS, SHARED, STATE, Instance
from sandbox.steps import Runner, Step


def up(instance: Instance, hosts: list[str]) -> None:
    """Make what is not there yet, and start what does not run. Raises SandboxError."""
    CACHE.mkdir(parents=True, exist_ok=True)
    table = images.table(source.decide())
    runner = _images_and_models(table)
    _add_boards(runner, instance, table["board"], hosts)
    _add_services(runner, instance, table)
    runner.execute()


def make_images() -> None:
    """Make images and models that are not there yet, which need no host. Raises SandboxError."""
    CACHE.mkdir(parents=True, exist_ok=True)
    _images_and_models(images.table(source.decide())).execute()


def _images_and_models(table: dict[str, Image]) -> Runner:
    runner = Runner(LOGS)
    _add_images(runner, table)
    runner.add("model-real", "Model SmolLM2 135M", models.fetch_real)
    runner.add("model-smoke", "Model smoke", models.make_smoke)
    runner.add("model-encoders", "Models for embeddings and reranking", models.make_encoders)
    return runner


def _add_images(runner: Runner, table: dict[str, Image]) -> None:
    """Steps that end in every image being there. Longest first: that is the order of starting."""
    tools = partial(
        engine.install_tools,
        debian=table["base"].official is None,
        ollama=table["ollama"].official is None,
    )
    runner.add("tools", "Packages of this machine", tools)
    runner.add("engine", "Docker engine", engine.start, ["tools"])
    ollama_needs = ["image-llamacpp"]
    if table["ollama"].official is None:
        toolchain = _unless_there(table["ollama"], ollama.fetch_toolchain)
        runner.add("go", f"Go {ollama.GO}", toolchain, ["engine"])
        title = f"Ollama {ollama.VERSION} from its source"
        build = _unless_there(table["ollama"], ollama.build)
        runner.add("ollama-binary", title, build, ["go"])
        ollama_needs.append("ollama-binary")
    bootstrap = partial(images.bootstrap, image=table["base"])
    runner.add("bootstrap", "Debian 13", bootstrap, ["engine"])
    needs = {
        "base": ["bootstrap"],
        "ollama": ollama_needs,
        "registry": ["image-services"],
    }
    for name, image in table.items():
        make = partial(images.make, image=image)
        runner.add(f"image-{name}", f"Image {name}", make, needs.get(name, ["image-base"]))


def _unless_there(image: Image, act: Callable[[Step], str | None]) -> Callable[[Step], str | None]:
    """The action, for an image that is still to be made: another checkout may have made it."""
    return lambda step: "not needed" if image.there else act(step)


def _add_boards(runner: Runner, instance: Instance, image: Image, hosts: list[str]) -> None:
    network = partial(boards.make_network, instance=instance)
    runner.add("network", f"Network {instance.subnet}", network, ["engine"])
    runner.add("key", "SSH key", partial(boards.make_key, instance=instance), ["tools"])
    for name in hosts:
        make = partial(boards.make_board, instance=instance, name=name, image=image)
        runner.add(f"board-{name}", f"Board {name}", make, ["image-board", "network", "key"])
    write = partial(boards.write_known_hosts, instance=instance)
    runner.add("known-hosts", "Host keys", write, [f"board-{name}" for name in hosts])


def _add_services(runner: Runner, instance: Instance, table: dict[str, Image]) -> None:
    image = table["services"]
    needs = ["image-services", "network"]
    registry = partial(services.start_registry, instance=instance, image=image)
    runner.add("registry", "Image registry", registry, needs)
    hub = partial(services.start_hub, instance=instance, image=image)
    certificate = partial(authority.make, instance=instance)
    runner.add("certificate", "Certificate of the hub", certificate)
    weights = ["model-real", "model-smoke", "model-encoders"]
    runner.add("hub", "Model hub", hub, [*needs, "certificate", *weights])
    published = {name: table[name] for name in images.PUBLISHED}
    for name, each in published.items():
        push = partial(services.publish, instance=instance, image=each)
        runner.add(f"push-{name}", f"Push {name}", push, ["registry", f"image-{name}"])
    path = instance.state / "images.json"
    write = partial(services.write_images, instance=instance, images=published, path=path)
    pushes = [f"push-{name}" for name in published]
    runner.add("images-json", "Image references", write, pushes)


def down(instance: Instance, keep_cache: bool) -> None:
    """Remove all that `up` made for this instance, and nothing else; says what stays.

    What the instances share (images, registry data, downloads, an engine that `up` started) goes
    with the last of them, unless `keep_cache`.
    """
    if not docker.answers() and engine.launched():
        # Its containers outlast it: they can only be removed through it.
        engine.launch()
        Step("engine", "Docker engine", engine.start).until(docker.answers, "the engine", 60)
    answers = docker.answers()
    if answers:
        _remove(instance)
    elif instance.state.exists():
        print("No Docker engine answers, so there is nothing to remove from it.")
    shutil.rmtree(instance.state, ignore_errors=True)
    others = [name for name in INSTANCES if name != instance.name and _is_up(name, answers)]
    if keep_cache or others:
        why = "as asked" if keep_cache else f"the sandbox {others[0]} uses them"
        print(f"Sandbox {instance.name} is down; images and downloads stay ({why}).")
        return
    if answers:
        # A container has the label of its image: those that an interrupted test has left.
        _remove_all("container", SHARED)
        print(f"{images.remove_all()} images removed.")
        _remove_all("volume", SHARED)
        print(engine.stop())
    packages = " ".join(engine.installed())
    stays = f" These Debian packages were installed and stay: {packages}." if packages else ""
    images.remove_tree(STATE)
    print(f"Sandbox {instance.name} is down.{stays}")


def _remove(instance: Instance) -> None:
    """Remove an instance's containers, volumes and network from the engine."""
    for kind in ("container", "volume", "network"):
        _remove_all(kind, instance.name)


def _remove_all(kind: str, owner: str) -> None:
    """Remove the objects of a kind that belong to an instance, or to all of them (SHARED)."""
    found = docker.labelled(kind, owner)
    if found:
        options = ["--force", "--volumes"] if kind == "container" else []
        docker.docker(kind, "rm", *options, *found)
        print(f"{len(found)} {kind}{'s' if len(found) > 1 else ''} removed.", flush=True)


def _is_up(name: str, answers: bool) -> bool:
    return answers and bool(docker.labelled("container", name) or docker.labelled("network", name))


def status(instance: Instance) -> str:
    """What is there, a line for each board and service of the instance."""
    if not docker.answers():
        return "No Docker engine answers: the sandbox is down."
    rows = [
        (name, instance.container(name), instance.address(h.octet)) for name, h in HOSTS.items()
    ]
    rows.append(("registry", instance.service("registry"), instance.registry))
    rows.append(("hub", instance.service("hub"), instance.hub_address))
    mine = set(docker.labelled("container", instance.name))
    lines = []
    for name, container, address in rows:
        found = docker.inspect("container", container)
        if found is None or not any(found["Id"].startswith(short) for short in mine):
            continue
        state = found["State"]["Status"]
        if state == "running" and name in HOSTS and not boards.ssh_answers(instance, name):
            state = "running, SSH does not answer"
        lines.append(f"{name:<10} {address:<18} {state}")
    return "\n".join(lines) or f"Sandbox {instance.name} is down."


def reboot(instance: Instance, host: str) -> None:
    """Restart a board in an orderly way, and wait until SSH answers. Raises SandboxError."""
    _restart(instance, host, ["restart"])


def power_cut(instance: Instance, host: str) -> None:
    """Kill a board's processes and start it again; wait until SSH answers. Raises SandboxError.

    What a board had not written to its disk is kept all the same: the disk is this machine's.
    """
    _restart(instance, host, ["kill", "start"])


def _restart(instance: Instance, host: str, verbs: list[str]) -> None:
    container = instance.container(host)
    if docker.ours("container", container, instance.name) is None:
        raise SandboxError(f"{host} is not there: `up` would start it.")

    def act(step: Step) -> None:
        for verb in verbs:
            step.run("docker", verb, container)
        boards.wait_for_ssh(step, instance, host)

    runner = Runner(LOGS)
    runner.add(f"{verbs[0]}-{host}", f"{' and '.join(verbs)} {host}", act)
    runner.execute()
