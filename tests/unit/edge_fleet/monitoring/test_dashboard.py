"""The dashboard: its form, and that nothing in it asks for a metric that does not exist."""

from __future__ import annotations

import json

from edge_fleet.monitoring.dashboard import DATASOURCE, ROWS, dashboard, queries

DASHBOARD = json.loads(dashboard())


def test_panels_have_ids_and_places_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells


def test_every_query_asks_the_data_source_of_the_provisioning() -> None:
    shown = [each for each in DASHBOARD["panels"] if each["type"] != "row"]
    assert len(shown) == sum(len(panels) for _, panels in ROWS)
    targets = [target for panel in shown for target in panel["targets"]]
    assert {each["datasource"]["uid"] for each in targets} == {DATASOURCE}
    assert list(dict.fromkeys(each["expr"] for each in targets)) == queries()


def test_every_query_follows_the_choice_of_hosts() -> None:
    """But the alerts, of which Prometheus has those of all hosts."""
    assert [each for each in queries() if '{host=~"$host"' not in each] == [
        'sum by (alertname) (ALERTS{alertstate="firing"}) or vector(0)'
    ]
