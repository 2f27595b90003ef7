"""
Understudy beside its peers: one run, interleaved, medians and ratios.

    python -m tests.benchmarks
    python -m tests.benchmarks --only ask in-flight --rounds 9
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from tests.benchmarks import report
from tests.benchmarks.harness import Harness, machine, missing_peers, progress
from tests.benchmarks.rows import ROWS


def main() -> int:
    options = _options()
    rows = [row for row in ROWS if options.only is None or row.key in options.only]
    for peer in missing_peers(rows):
        progress(f"{peer} is not installed: skipped")
    rounds = options.rounds or (2 if options.quick else 5)
    found = {"machine": machine(), "rounds": rounds, "quick": options.quick, "rows": []}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Harness(rounds, is_quick=options.quick) as harness:
            for row in rows:
                found["rows"].append(harness.run(row))
    except KeyboardInterrupt:
        progress("interrupted")
    print(report.table(found["rows"]))
    options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    progress(f"samples in {options.json}")
    return 0 if len(found["rows"]) == len(rows) else 130


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    keys = [row.key for row in ROWS]
    latest = Path(__file__).with_name("latest.json")
    parser.add_argument("--rounds", type=int, help="samples of each contestant (5; 2 with --quick)")
    parser.add_argument("--quick", action="store_true", help="small samples, to see that everything runs")
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=keys, help=", ".join(keys))
    parser.add_argument("--json", type=Path, default=latest, help="where all samples go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
