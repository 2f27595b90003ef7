"""Traces and baggage as text: what is valid is read and written unchanged, the rest as if it had not come."""

from __future__ import annotations

import pickle
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import InvalidArgument
from actors.traces import MAX_BAGGAGE_BYTES, MAX_BAGGAGE_ITEMS, Trace, read_baggage, write_baggage

quick = settings(max_examples=200, deadline=None, database=None)
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TEXT = f"00-{TRACE}-{SPAN}-01"


def hexes(digits: int) -> st.SearchStrategy[str]:
    return st.integers(1, 16**digits - 1).map(lambda number: f"{number:0{digits}x}")


traces = st.builds(Trace, hexes(32), hexes(16), st.integers(0, 3))
keys = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=20)
baggage = st.dictionaries(keys, st.text(st.characters(codec="utf-8"), max_size=30), max_size=20)


@quick
@given(traces)
def test_a_trace_is_55_characters_and_reads_back_as_itself(trace: Trace) -> None:
    text = str(trace)

    assert len(text) == 55
    assert text.isascii()
    assert Trace.parse(text) == trace


@quick
@given(traces)
def test_a_child_is_another_span_of_the_same_trace(trace: Trace) -> None:
    child = trace.child()

    assert (child.trace_id, child.flags) == (trace.trace_id, trace.flags)
    assert child.span_id != trace.span_id
    assert pickle.loads(pickle.dumps(child)) == child


@quick
@given(st.one_of(st.text(max_size=80), st.text("0123456789abcdef-", min_size=50, max_size=60), st.none()))
def test_any_text_is_a_trace_that_reads_back_or_none(text: str | None) -> None:
    trace = Trace.parse(text)

    assert trace is None or Trace.parse(str(trace)) == trace


@quick
@given(st.integers(0, 54), st.characters())
def test_one_wrong_character_makes_it_none_or_another_whole_one(at: int, character: str) -> None:
    changed = TEXT[:at] + character + TEXT[at + 1 :]

    trace = Trace.parse(changed)

    if trace is not None:
        assert character in "0123456789abcdef-"
        assert str(trace)[3:53] == changed[3:53]


WRONG = {
    "nothing": "",
    "upper case": TEXT.upper(),
    "a version that is forbidden": f"ff-{TRACE}-{SPAN}-01",
    "a version of one digit": f"0-{TRACE}-{SPAN}-01",
    "a trace of zeros": f"00-{'0' * 32}-{SPAN}-01",
    "a span of zeros": f"00-{TRACE}-{'0' * 16}-01",
    "a trace too short": f"00-{TRACE[1:]}-{SPAN}-01",
    "a span too long": f"00-{TRACE}-{SPAN}0-01",
    "flags that are none": f"00-{TRACE}-{SPAN}-0g",
    "more than version 0 has": f"{TEXT}-more",
    "white space": f" {TEXT}",
    "a line end": f"{TEXT}\n",
    "more than anybody sends": f"01-{TRACE}-{SPAN}-01-" + "x" * 1000,
    "digits of another script": f"00-{TRACE[:-1]}\N{ARABIC-INDIC DIGIT FOUR}-{SPAN}-01",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_what_is_no_traceparent_is_none(text: str) -> None:
    assert Trace.parse(text) is None


@pytest.mark.parametrize("value", [None, 5, b"00", [], {}])
def test_what_is_no_text_is_no_trace(value: object) -> None:
    assert Trace.parse(value) is None


@pytest.mark.parametrize("text", [f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-comes-later"])
def test_later_versions_are_read_as_far_as_they_are_known(text: str) -> None:
    assert str(Trace.parse(text)) == TEXT


def test_flags_that_nobody_knows_yet_are_not_passed_on() -> None:
    assert str(Trace.parse(f"00-{TRACE}-{SPAN}-ff")).endswith("-03")


def test_a_new_trace_is_sampled_unless_it_should_not_be() -> None:
    assert Trace.new().sampled
    assert not Trace.new(sampled=False).sampled
    assert Trace.new().trace_id != Trace.new().trace_id


@pytest.mark.parametrize(
    ("trace_id", "span_id", "flags"),
    [
        ("0" * 32, SPAN, 1),
        (TRACE, "0" * 16, 1),
        (TRACE.upper(), SPAN, 1),
        ("", SPAN, 1),
        (TRACE, SPAN[1:], 1),
    ],
)
def test_ids_that_are_none_are_refused(trace_id: str, span_id: str, flags: int) -> None:
    with pytest.raises(InvalidArgument, match="no trace"):
        Trace(trace_id, span_id, flags)


@quick
@given(baggage)
def test_baggage_reads_back_as_it_was(items: dict[str, str]) -> None:
    text = write_baggage(items)

    assert text.isascii()
    assert not set(text) & set(' "\\')
    assert read_baggage(text) == items


crowded = st.integers(1, 180).flatmap(
    lambda count: st.sampled_from(["%", "é", " ", "a"]).map(
        lambda character: ",".join(
            f"k{n}={character * (MAX_BAGGAGE_BYTES // count - 6)}" for n in range(count)
        )
    )
)


@quick
@given(
    st.one_of(st.text(max_size=200), st.text("ab=,; %2\t", max_size=200), crowded, st.none(), st.integers())
)
def test_any_text_as_baggage_is_read_as_far_as_it_goes(text: object) -> None:
    items = read_baggage(text)

    assert len(items) <= MAX_BAGGAGE_ITEMS
    assert read_baggage(write_baggage(items)) == items


def test_members_that_are_wrong_do_not_spoil_the_others() -> None:
    text = "tenant=7, =none,bad key=1 ,alone,user = %C3%A9va ;secret;ttl=3,x=%ff"

    assert read_baggage(text) == {"tenant": "7", "user": "éva", "x": "\ufffd"}


def test_baggage_is_bounded() -> None:
    most = {f"k{number}": "v" for number in range(MAX_BAGGAGE_ITEMS)}
    assert read_baggage(write_baggage(most)) == most
    assert write_baggage({"k": "v" * (MAX_BAGGAGE_BYTES - 2)})
    with pytest.raises(InvalidArgument, match="181 items"):
        write_baggage({**most, "more": "v"})
    with pytest.raises(InvalidArgument, match="8193 bytes"):
        write_baggage({"k": "v" * (MAX_BAGGAGE_BYTES - 1)})
    assert read_baggage("k=" + "v" * MAX_BAGGAGE_BYTES) == {}


@pytest.mark.parametrize("items", [{"a b": "1"}, {"": "1"}, {"a,b": "1"}, {"a": 1}, {1: "a"}, {"é": "1"}])
def test_baggage_that_is_none_is_refused(items: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="baggage"):
        write_baggage(items)
