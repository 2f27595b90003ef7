"""The checker checked: what is planted in a ledger has to be found, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from supervisors.testing import Fault, Ledger, Record, check, read_ledger

NOW = 100.0


def told(
    seq: int, at: float, *, taken: bool = True, handled_at: float | None = None, pid: int = 7, life: int = 1
) -> list[Record]:
    """A tell to `desk/0`, its taking and its handling."""
    records = [Record("sent", at, "desk/0", "s", seq, detail="tell note", due_at=at + 15)]
    if taken:
        records.append(Record("accepted", at + 0.01, "desk/0", "s", seq))
    if handled_at is not None:
        records.append(Record("handled", handled_at, "desk/0", "s", seq, incarnation=life, pid=pid))
    return records


def asked(
    seq: int, at: float, *, outcome: str | None = "ok", settled_at: float | None = None, handled: bool = True
) -> list[Record]:
    """An ask to the service `desk`, due 2 s later."""
    records = [Record("sent", at, "desk", "a", seq, detail="ask write", due_at=at + 2)]
    if handled:
        records.append(Record("handled", at + 0.01, "desk/0", "a", seq, incarnation=1, pid=7))
    if outcome is not None:
        records.append(
            Record(
                "outcome", at + 0.02 if settled_at is None else settled_at, "desk/0", "a", seq, detail=outcome
            )
        )
    return records


def born(member: str, life: int, at: float, pid: int = 7) -> Record:
    return Record("life", at, member, incarnation=life, pid=pid)


def test_a_run_without_blemish_is_clean() -> None:
    records = [
        *told(1, 1, handled_at=1.1),
        *told(2, 2, handled_at=2.1),
        *asked(1, 3),
        *asked(2, 4, outcome="never ran Unavailable (x)", handled=False),
    ]

    verdict = check(records, now=NOW)

    assert verdict.is_clean
    assert verdict.line() == "LOST 0 · DUP 0 · ORDER 0 · GHOST 0 · HUNG 0 · ORPHANS 0 · RTO - · BLAST 0"
    assert (verdict.sent, verdict.handled, verdict.outcomes) == (
        4,
        3,
        (("ok", 1), ("never ran Unavailable", 1)),
    )


def test_a_planted_loss_is_found() -> None:
    """Taken, and its neighbours were handled by the same process, before and after."""
    records = [*told(1, 1, handled_at=1.1), *told(2, 2), *told(3, 3, handled_at=3.1)]

    verdict = check(records, now=NOW)

    assert verdict.lost == ("s #2 to desk/0 was taken at 2.010 by pid 7, which lives",)
    assert not verdict.is_clean


def test_an_answer_without_a_handler_is_a_loss_too() -> None:
    assert len(check(asked(1, 1, handled=False), now=NOW).lost) == 1


def test_what_died_with_its_process_is_unreported() -> None:
    records = [*told(1, 1, handled_at=1.1), *told(2, 2), *told(3, 3, handled_at=3.1, pid=8, life=2)]

    verdict = check(records, now=NOW)

    assert (verdict.is_clean, verdict.unreported) == (True, 1)


def test_a_dead_letter_explains_one_message() -> None:
    dropped = Record("dead_letter", 2.5, "desk/0", detail="note: stopped")
    one = [*told(1, 1, handled_at=1.1), *told(2, 2), dropped, *told(4, 4, handled_at=4.1)]

    assert check([*one, *told(3, 3, handled_at=3.1)], now=NOW).is_clean
    assert len(check([*one, *told(3, 3)], now=NOW).lost) == 1


def test_a_planted_duplicate_is_found() -> None:
    again = Record("handled", 5.0, "desk/1", "a", 1, incarnation=2, pid=9)

    [found] = check([*asked(1, 1), again], now=NOW).dup

    assert found.startswith("a #1 handled 2 times: desk/0 life 1 pid 7")


def test_a_planted_inversion_is_found() -> None:
    records = [*told(1, 1, handled_at=3.1), *told(2, 2, handled_at=2.1)]

    assert check(records, now=NOW).order == ("s #1 to desk/0 handled at 3.100 after #2",)


def test_the_way_through_a_service_has_no_order() -> None:
    records = [*asked(2, 1), *asked(1, 2)]

    assert check(records, now=NOW).is_clean


def test_what_nobody_sent_is_a_ghost() -> None:
    assert check([Record("handled", 1.0, "desk/0", "x", 1)], now=NOW).ghost == (
        "x #1 to desk/0 was never sent",
    )


def test_what_ran_although_its_sender_was_told_that_it_did_not_is_a_ghost() -> None:
    assert len(check(asked(1, 1, outcome="never ran Unavailable (x)"), now=NOW).ghost) == 1
    assert check(asked(1, 1, outcome="may have run Unavailable (x)"), now=NOW).is_clean


def test_no_outcome_and_a_late_one_are_hung() -> None:
    records = [
        *asked(1, 1, outcome=None),
        *asked(2, 1, settled_at=3.6),
        *asked(3, 1, settled_at=3.4),
        *asked(4, NOW - 1, outcome=None),
    ]

    found = check(records, now=NOW).hung

    assert [each.split(" to ")[0] for each in found] == ["ask write a #1", "ask write a #2"]


def test_a_life_that_ended_without_a_cause_is_blast() -> None:
    records = [born("desk/0", 1, 1), born("desk/0", 2, 5), born("desk/1", 1, 1), born("desk/1", 2, 5)]

    [found] = check(records, [Fault(1, "kill", "desk/0", 4.9, ends=("desk/0",))], now=NOW).blast

    assert found.startswith("desk/1 began life 2")


def test_an_understudy_that_took_over_before_it_was_killed_explains_the_end_of_that_life() -> None:
    lives = [born("desk/0", 1, 1), born("desk/0", 2, 5, pid=8), born("desk/0", 3, 6, pid=9)]
    killed, understudy = (
        Fault(1, "kill", "desk/0", 4.9, ends=("desk/0",)),
        Fault(2, "kill_understudy", "", 4.95),
    )

    assert check(lives, [killed, replace(understudy, pid=8)], now=NOW).is_clean
    assert len(check(lives, [killed, replace(understudy, pid=7)], now=NOW).blast) == 1


def test_one_fault_explains_one_more_life_unless_it_lasts() -> None:
    lives = [born("desk/0", life, float(life)) for life in (1, 2, 3)]
    short = Fault(1, "kill", "desk/0", 1.5, ends=("desk/0",))
    lasting = Fault(1, "start_raises", "desk/0", 1.5, ends=("desk/0",), healed_at=2.5)

    assert len(check(lives, [short], now=NOW).blast) == 1
    assert check(lives, [lasting], now=NOW).is_clean


def test_who_had_to_end_and_works_on_is_blast_too() -> None:
    records = [born("desk/0", 1, 1), *told(1, 20, handled_at=20.1)]

    assert (
        len(
            check(records, [Fault(1, "kill", "desk/0", 10, ends=("desk/0",), is_certain=True)], now=NOW).blast
        )
        == 1
    )
    assert check(records, [Fault(1, "scale", "desk", 10, ends=("desk/0",))], now=NOW).is_clean


def test_the_recovery_time_ends_with_the_first_answer_of_the_next_life() -> None:
    answer = Record("outcome", 10.3, "desk/0", "a", 1, incarnation=2, pid=8, detail="ok")
    early = Record("outcome", 10.01, "desk/0", "a", 2, incarnation=1, pid=7, detail="ok")
    kill = Fault(1, "kill", "desk/0", 10.0, ends=("desk/0",), is_certain=True)

    verdict = check([born("desk/0", 1, 1), born("desk/0", 2, 10.1, 8), early, answer], [kill], now=NOW)

    assert [round(seconds, 3) for seconds in verdict.rto] == [0.3]


def test_a_ledger_is_read_as_it_was_written_up_to_a_torn_line(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write("sent", "desk", "a", 1, detail="ask write", due_at=5.0)
    ledger.write("handled", "desk/0", "a", 1, incarnation=2, pid=3)
    ledger.close()
    [path] = tmp_path.glob("*.ledger")
    with path.open("ab") as file:
        file.write(b'["sent", 1')

    first, second = read_ledger(tmp_path)

    assert (first.what, first.target, first.sender, first.seq, first.detail, first.due_at) == (
        "sent",
        "desk",
        "a",
        1,
        "ask write",
        5.0,
    )
    assert (second.what, second.incarnation, second.pid) == ("handled", 2, 3)
    assert first.at <= second.at


def test_a_life_that_has_the_number_of_another_is_blast() -> None:
    lives = [born("desk/0", 2, 1.0), born("desk/0", 1, 2.0)]

    [found] = check(lives, [Fault(1, "kill", "desk/0", 1.5, ends=("desk/0",))], now=NOW).blast

    assert found == "desk/0 began life 1 (pid 7) at 2.000, after life 2 (pid 7)"
