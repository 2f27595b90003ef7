"""
Understudy beside its peers: one run, interleaved, medians and ratios.

    python -m tests.benchmarks
    python -m tests.benchmarks --only ask in-flight --rounds 9
    python -m tests.benchmarks --plot tests/benchmarks/latest.json

A whole run ends with its plots, beside the JSON.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks import plots, report
from tests.benchmarks.harness import Harness, machine, missing_peers, progress
from tests.benchmarks.rows import ROWS
from tests.benchmarks.sweeps import SWEEPS


def main() -> int:
    options = _options()
    if options.plot is not None:
        return _draw(json.loads(options.plot.read_text()), options.plot.parent)
    rows = [row for row in ROWS if options.only is None or row.key in options.only]
    sweeps = [sweep for sweep in SWEEPS if options.only is None or sweep.key in options.only]
    for peer in missing_peers([*rows, *sweeps]):
        progress(f"{peer} is not installed: skipped")
    rounds = options.rounds or (2 if options.quick else 5)
    found: dict[str, Any] = {
        "machine": machine(),
        "rounds": rounds,
        "quick": options.quick,
        "rows": [],
        "sweeps": [],
    }
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Harness(rounds, is_quick=options.quick) as harness:
            for row in rows:
                found["rows"].append(harness.run(row))
            for sweep in sweeps:
                found["sweeps"].append(harness.sweep(sweep))
    except KeyboardInterrupt:
        progress("interrupted")
    print(report.table(found["rows"]))
    for each in found["sweeps"]:
        print(report.sweep_table(each))
    options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    progress(f"samples in {options.json}")
    if (len(found["rows"]), len(found["sweeps"])) != (len(rows), len(sweeps)):
        return 130
    return _draw(found, options.json.parent) if options.only is None and not options.quick else 0


def _draw(found: dict[str, Any], folder: Path) -> int:
    try:
        for path in plots.draw(found, folder):
            progress(f"drawn: {path}")
    except ModuleNotFoundError as error:
        progress(f"no plots: {error}; `pip install '.[bench]'` brings what they need")
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    keys = [each.key for each in (*ROWS, *SWEEPS)]
    latest = Path(__file__).with_name("latest.json")
    parser.add_argument("--rounds", type=int, help="samples of each contestant (5; 2 with --quick)")
    parser.add_argument("--quick", action="store_true", help="small samples, to see that everything runs")
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=keys, help=", ".join(keys))
    parser.add_argument("--json", type=Path, default=latest, help="where all samples go")
    parser.add_argument("--plot", type=Path, metavar="JSON", help="only draw what an earlier run found")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
