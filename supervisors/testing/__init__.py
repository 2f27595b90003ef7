"""
Tools for testing apps, for users as for us: a cluster of its own for an app, faults,
load, and a ledger that tells what was lost.

    with local_app(app) as cluster, Load(cluster, ledger, "kitchen"), Nemesis(cluster, seed=7) as nemesis:
        nemesis.run(60)
    verdict = check(read_ledger(folder), nemesis.faults)
    assert verdict.is_clean, verdict.text()

Everything here runs in the test's own process, outside the blast radius; faults go only into
processes that the app's house has started.
"""

# Each enters its faults into `FAULTS`.
from supervisors.testing import bugs, control_plane, machine, processes  # noqa: F401
from supervisors.testing.ledger import Ledger, Record, read_ledger
from supervisors.testing.load import Load
from supervisors.testing.local import LocalApp, local_app
from supervisors.testing.nemesis import FAULTS, LONG, Fault, Nemesis, Skipped
from supervisors.testing.scribe import Planted, Scribe
from supervisors.testing.verdict import Verdict, check

__all__ = [
    "FAULTS",
    "LONG",
    "Fault",
    "Ledger",
    "Load",
    "LocalApp",
    "Nemesis",
    "Planted",
    "Record",
    "Scribe",
    "Skipped",
    "Verdict",
    "check",
    "local_app",
    "read_ledger",
]
