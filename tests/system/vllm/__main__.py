"""Pushes the image of vLLM to the registry of the test boards: `python -m tests.system.vllm`."""

from __future__ import annotations

import json
from functools import partial

from sandbox import images, services, source
from sandbox.instance import LOGS, Instance
from sandbox.steps import Runner, Step
from tests.system.vllm.test_site import REFERENCE


def write_down(step: Step, instance: Instance, image: images.Image) -> str | None:
    """Write down by which name the board pulls it."""
    reference = f"{instance.registry}/edge-llm/{image.name}@{services.digest(instance, image)}"
    REFERENCE.write_text(json.dumps(reference))
    return reference


def main() -> None:
    instance = Instance("test")
    image = images.vllm(images.table(source.decide()))
    runner = Runner(LOGS)
    publish = partial(services.publish, instance=instance, image=image)
    runner.add("push-vllm", "Push vllm", publish)
    write = partial(write_down, instance=instance, image=image)
    runner.add("vllm-reference", "Its reference", write, ["push-vllm"])
    runner.execute()


if __name__ == "__main__":
    main()
