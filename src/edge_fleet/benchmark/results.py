"""What a benchmark of a host comes to: its record and file, baseline, gate and comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edge_fleet.benchmark.compare import baseline_of, gate_problem, published_of, shares
from edge_fleet.benchmark.measured import record_of
from edge_fleet.benchmark.published import read_published
from edge_fleet.benchmark.record import Record
from edge_fleet.setting_types import number_of, plain


def read_records(folder: str, host: str) -> list[Record]:
    """The results of a host in a folder, the oldest first. Raises ValueError for a broken file."""
    records = []
    for path in sorted(Path(folder).glob("*/*/*/*.json")):
        try:
            record = Record.model_validate_json(path.read_bytes())
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]
            place = ".".join(map(str, reason["loc"])) or "the file"
            raise ValueError(
                f"{path} is invalid: {place}: {reason['msg']}. Remove it, or restore it."
            ) from error
        if record.host == host:
            records.append(record)
    return sorted(records, key=lambda each: each.at)


def benchmark_result(
    measured: Mapping[str, Any],
    folder: str,
    published: str,
    new_baseline: bool = False,
    gate: Any = None,
) -> dict[str, Any]:
    """What a measured host comes to.

    measured: as `record_of` has it; folder: of all results; published: the path of
    published_speeds.yml; new_baseline: whether this result is to be the baseline; gate:
    llm_benchmark_gate. Returns {"record", "path" and "content" of its file, "baseline" (the record
    that it is compared with, or None), "shares" (of that), "published", "problem" (of the gate)}.
    """
    found = plain(measured)
    record = record_of(found, baseline=True)
    earlier = read_records(folder, record.host)
    baseline = baseline_of(record, earlier)
    if baseline is not None and not new_baseline:
        record = record.model_copy(update={"baseline": False})
    threshold = None if gate in (None, "") else float(str(number_of(plain(gate))))
    return {
        "record": record.model_dump(mode="json"),
        "api_share": record.api_share,
        "path": f"{folder}/{record.path}",
        "content": record.text(),
        "baseline": baseline.model_dump(mode="json") if baseline else None,
        "shares": shares(record, baseline) if baseline else {},
        "published": [dict(each) for each in published_of(record, read_published(published))],
        "problem": gate_problem(record, baseline, threshold),
    }
