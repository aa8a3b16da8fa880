"""Engines and chat APIs, started when a test first asks for them and kept until the end.

`pytest tests/integration/engines` runs everything over llama-server and Ollama; `--engine NAME,...`
names others. `python -m sandbox images` makes what it needs, once.
"""

from __future__ import annotations

import fcntl
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.integration.engines import running
from tests.integration.engines.running import (
    MODELS,
    READY_SECONDS,
    REAL,
    EngineUnderTest,
    settings_of,
)
from tests.integration.engines.serving import ChatApi, Served

_FIXTURES = {name.partition("-")[0]: name for name in MODELS}
LOCK = Path(tempfile.gettempdir()) / "edge-llm-engines.lock"
"""Held by whoever has engines run, from any checkout: others would use the same names and cores."""
CONTEXT, PARALLEL = 4096, 4


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine",
        default="llamacpp,ollama",
        metavar="NAME,...",
        help="the engines to test, each a module beside this one (default: llamacpp,ollama)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "engines(*names): a test that needs all of these engines at the same time"
    )


def _chosen(config: pytest.Config) -> list[str]:
    return [name.strip() for name in str(config.getoption("--engine")).split(",")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test over each engine that can serve the models that it asks for."""
    if "engine" in metafunc.fixturenames:
        needed = {model for name, model in _FIXTURES.items() if name in metafunc.fixturenames}
        able = [n for n in _chosen(metafunc.config) if needed <= running.engine(n).models]
        metafunc.parametrize("engine", able, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for other engines than those asked for."""
    chosen = set(_chosen(config))

    def is_for_others(item: pytest.Item) -> bool:
        mark = item.get_closest_marker("engines")
        callspec = getattr(item, "callspec", None)
        nobody = callspec is not None and "NOTSET" in str(callspec.params.get("engine"))
        return nobody or (mark is not None and not set(mark.args) <= chosen)

    out = [item for item in items if is_for_others(item)]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


class House:
    """All that runs for the tests of one session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        self._served: dict[tuple[str, str], Served] = {}
        self._engines: list[EngineUnderTest] = []
        self._apis: list[ChatApi] = []

    def engine(
        self, name: str, model: str, context: int = CONTEXT, parallel: int = PARALLEL
    ) -> EngineUnderTest:
        """A further engine, not started."""
        made = running.engine(name)(model, context, parallel)
        self._engines.append(made)
        made.remove()  # what a run that was killed may have left
        return made

    def api(self, environ: dict[str, str]) -> ChatApi:
        """A further chat API, not started."""
        made = ChatApi(self.folder / f"api-{next(self._numbers)}", environ)
        self._apis.append(made)
        return made

    def served(
        self, name: str, model: str, context: int = CONTEXT, parallel: int = PARALLEL
    ) -> Served:
        """An engine with a model, ready, and a chat API before it: the same one for all tests."""
        if (name, model) not in self._served:
            made = self.engine(name, model, context, parallel)
            made.start()
            api = self.api(settings_of(made))
            api.start()
            end = time.monotonic() + READY_SECONDS
            while not api.ready():
                assert time.monotonic() < end, f"{name} is not ready: {made.logs()}{api.logs()}"
                time.sleep(0.1)
            self._served[name, model] = Served(made, api)
        return self._served[name, model]

    def close(self) -> None:
        """End all of it."""
        for api in self._apis:
            api.stop()
        for made in self._engines:
            made.remove()


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[House]:
    lack = running.missing()
    assert lack is None, lack
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            capture = pytestconfig.pluginmanager.getplugin("capturemanager")
            with capture.global_and_fixture_disabled() if capture else nullcontext():
                print("\nAnother run of these tests is on; waiting for it to end.", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        house = House(tmp_path_factory.mktemp("engines"))
        try:
            yield house
        finally:
            house.close()


@pytest.fixture(params=["module", "api"])
def level(request: pytest.FixtureRequest) -> str:
    """Where a test asks: the module straight at the engine, or the chat API."""
    return str(request.param)


@pytest.fixture(scope="session")
def smoke(house: House, engine: str) -> Served:
    return house.served(engine, "smoke")


@pytest.fixture(scope="session")
def tools(house: House, engine: str) -> Served:
    return house.served(engine, "tools")


@pytest.fixture(scope="session")
def unicode(house: House, engine: str) -> Served:
    return house.served(engine, "unicode")


@pytest.fixture(scope="session")
def endless(house: House, engine: str) -> Served:
    return house.served(engine, "endless")


@pytest.fixture(scope="session")
def smollm2(house: House, engine: str) -> Served:
    return house.served(engine, REAL)
