"""Calls to services on Ray: where they go, what comes back, what is refused; one app for all tests here."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import players
import pytest
from players import Chef, UnknownDish, Waiter, Watcher

from actors.errors import (
    ActorError,
    ActorStopped,
    AlreadyStarted,
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    SerializationError,
    UnknownMethod,
)
from actors.pickling import RemoteTraceback
from supervisors import App, Cluster, Service, connect

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster(venue: Any) -> Iterator[Cluster]:
    services = [
        Service("kitchen", Chef, args=("grill",), size=3, per_host=1),
        Service("annex", Chef, args=("oven",), kwargs={}, size=2, per_host=2, routing="round_robin"),
        Service("hall", Waiter),
        Service("tower", Watcher),
    ]
    with venue.play(*services) as cluster:
        yield cluster


@pytest.fixture
def kitchen(cluster: Cluster) -> Any:
    return cluster.service("kitchen", Chef)


async def orders(count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield f"dish {number}"


class TestRouting:
    def test_a_call_has_its_value(self, kitchen: Any) -> None:
        assert kitchen.cook("steak").result() == "steak from the grill"
        assert kitchen.ask(Chef.cook, "steak", times=2).result() == "steak from the grill"
        assert kitchen.ask("cook", "steak").result() == "steak from the grill"

    def test_calls_spread_over_the_members(self, kitchen: Any) -> None:
        replies = [kitchen.nap(0.1) for _ in range(6)]

        assert sorted(reply.result() for reply in replies) == [
            "kitchen/0",
            "kitchen/0",
            "kitchen/1",
            "kitchen/1",
            "kitchen/2",
            "kitchen/2",
        ]

    def test_members_have_a_process_each_or_share_one(self, cluster: Cluster, kitchen: Any) -> None:
        alone = kitchen.broadcast(Chef.who).result()
        shared = cluster.service("annex").broadcast("who").result()

        assert len({outcome.unwrap()[2] for outcome in alone.values()}) == 3
        assert len({outcome.unwrap()[2] for outcome in shared.values()}) == 1

    def test_members_run_at_the_priority_of_the_program_that_started_them(self, kitchen: Any) -> None:
        """Ray's own workers stand behind everything else on the machine, and so would each restart."""
        _, _, pid = kitchen.member(0).who().result()

        assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, os.getpid())

    def test_a_member_is_called_by_number(self, kitchen: Any) -> None:
        assert [kitchen.member(n).who().result()[0] for n in range(3)] == [
            "kitchen/0",
            "kitchen/1",
            "kitchen/2",
        ]

    def test_one_key_is_one_member(self, kitchen: Any) -> None:
        tables = {
            key: {kitchen.options(key=key).who().result()[0] for _ in range(3)} for key in map(str, range(12))
        }

        assert all(len(members) == 1 for members in tables.values())
        assert len(set.union(*tables.values())) == 3

    def test_a_broadcast_has_every_outcome_by_member(self, kitchen: Any) -> None:
        outcomes = kitchen.options(timeout=2).broadcast(Chef.cook, "unicorn").result()

        assert sorted(outcomes) == ["kitchen/0", "kitchen/1", "kitchen/2"]
        assert all(isinstance(outcome.error, UnknownDish) for outcome in outcomes.values())

    def test_a_thousand_calls_in_flight_all_answer(self, kitchen: Any) -> None:
        replies = [kitchen.echo(n) for n in range(1000)]

        assert [reply.result() for reply in replies] == list(range(1000))

    def test_a_tell_is_taken_and_carried_out(self, cluster: Cluster) -> None:
        member = cluster.service("kitchen").member(2)
        before = member.count().result()

        member.tell(Chef.cook, "stock", times=10).result()

        assert member.count().result() == before + 10


class TestStreams:
    def test_items_come_one_by_one(self, kitchen: Any) -> None:
        assert list(kitchen.courses(["soup", "fish"])) == ["soup from the grill", "fish from the grill"]

    def test_an_error_ends_a_stream_where_it_happens(self, kitchen: Any) -> None:
        stream = iter(kitchen.courses(["soup", "unicorn", "fish"]))

        assert next(stream) == "soup from the grill"
        with pytest.raises(UnknownDish):
            next(stream)

    def test_an_async_generator_travels_to_a_member_and_from_there_to_another(
        self, cluster: Cluster, kitchen: Any
    ) -> None:
        cooked = [f"dish {number} from the grill" for number in range(1000)]

        assert list(kitchen.prepare(orders(1000))) == cooked
        hall = cluster.service("hall").options(timeout=30)
        assert hall.take_orders("kitchen", orders(1000)).result() == cooked

    def test_an_error_of_the_callers_comes_back_through_both(self, cluster: Cluster) -> None:
        async def no_more() -> AsyncIterator[str]:
            yield "soup"
            raise UnknownDish("of the guest's own")

        with pytest.raises(UnknownDish, match="of the guest's own"):
            cluster.service("hall").take_orders("kitchen", no_more()).result()

    def test_leaving_early_frees_the_member(self, kitchen: Any) -> None:
        member = kitchen.member(0)
        for course in member.courses(["soup"] * 100_000):
            assert course == "soup from the grill"
            break

        assert member.cook("steak").result(10) == "steak from the grill"


class TestErrors:
    def test_an_expected_exception_is_an_answer_of_its_own_class(self, kitchen: Any) -> None:
        member = kitchen.member(0)
        name, life, pid = member.who().result()

        with pytest.raises(UnknownDish) as caught:
            member.cook("unicorn").result()

        assert type(caught.value) is UnknownDish
        assert caught.value.args == ("unicorn",)
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert "in cook" in str(caught.value.__cause__)
        assert member.who().result() == (name, life, pid)

    def test_any_other_exception_reaches_the_caller_and_crashes_the_member(self, kitchen: Any) -> None:
        """It is restarted in its own process: same name, same pid, next life."""
        member = kitchen.member(1)
        name, life, pid = member.who().result()

        with pytest.raises(players.Burnt, match="the roux"):
            member.burn().result()

        assert member.who().result() == (name, life + 1, pid)

    def test_somebody_elses_error_passes_through_and_crashes_nobody_else(self, cluster: Cluster) -> None:
        hall = cluster.service("hall").member(0)
        before = hall.who().result()

        with pytest.raises(players.Burnt):
            hall.burn_in("annex").result()

        assert hall.who().result() == before

    def test_an_unknown_service_is_refused_at_once_with_the_nearest_name(self, cluster: Cluster) -> None:
        with pytest.raises(NotFound, match=r"has no service 'kitchn'; did you mean 'kitchen'\?"):
            cluster.service("kitchn")

    def test_an_unknown_method_names_the_nearest(self, kitchen: Any) -> None:
        with pytest.raises(UnknownMethod, match=r"no method 'cok'; did you mean 'cook'\?"):
            kitchen.cok("steak").result()

    def test_an_unknown_member_says_how_many_there_are(self, kitchen: Any) -> None:
        with pytest.raises(NotFound, match="kitchen/9: kitchen has 3 members"):
            kitchen.member(9)

    def test_arguments_that_do_not_fit_are_an_answer(self, kitchen: Any) -> None:
        with pytest.raises(InvalidArgument, match="missing a required argument: 'dish'"):
            kitchen.cook().result()

    def test_an_argument_that_cannot_travel_is_named_at_the_sender(self, kitchen: Any) -> None:
        with pytest.raises(
            SerializationError, match=r"argument 1 of kitchen\S*\.echo\(\) cannot be pickled: <unlocked"
        ):
            kitchen.echo(threading.Lock()).result()

    def test_what_takes_too_long_is_over_at_the_deadline(self, kitchen: Any) -> None:
        began_at = time.monotonic()

        with pytest.raises(DeadlineExceeded):
            kitchen.options(timeout=0.2).nap(30).result()

        assert time.monotonic() - began_at < 5
        assert kitchen.options(timeout=3).deadline_left().result() == pytest.approx(3, abs=1)

    def test_a_cancelled_call_ends_at_the_far_end_too(self, kitchen: Any) -> None:
        member = kitchen.member(2)
        reply = member.nap(30)
        assert kitchen.member(0).cook("steak").result()

        reply.cancel()

        with pytest.raises(Cancelled):
            reply.result()
        assert member.cook("steak").result(10) == "steak from the grill"

    def test_errors_are_one_line(self, cluster: Cluster, kitchen: Any) -> None:
        for call in (
            lambda: kitchen.cok().result(),
            lambda: cluster.kill("kitchen/99").result(),
            lambda: cluster.scale("kitchn", 3).result(),
        ):
            with pytest.raises(ActorError) as caught:
                call()
            assert "\n" not in str(caught.value)


class TestBetweenServices:
    def test_a_member_finds_other_services(self, cluster: Cluster) -> None:
        assert cluster.service("hall").serve("annex", "cake").result() == "served: cake from the oven"

    def test_an_error_of_another_service_keeps_its_class_on_the_way(self, cluster: Cluster) -> None:
        with pytest.raises(UnknownDish):
            cluster.service("hall").serve("kitchen", "unicorn").result()

    def test_refs_travel_in_messages(self, cluster: Cluster, kitchen: Any) -> None:
        hall = cluster.service("hall")

        assert hall.serve_from(kitchen.options(key="7"), "steak").result() == "served: steak from the grill"
        assert hall.serve_from(kitchen.member(1), "steak").result() == "served: steak from the grill"
        assert hall.meet(kitchen.member(2).myself().result()).result() == "kitchen/2"

    def test_a_ref_that_comes_back_is_the_same(self, kitchen: Any) -> None:
        assert kitchen.echo(kitchen.member(1)).result() == kitchen.member(1)
        assert kitchen.echo(kitchen).result() == kitchen

    def test_a_member_that_leaves_for_good_is_reported_to_its_watcher(
        self, cluster: Cluster, until: Any
    ) -> None:
        cluster.scale("annex", 3).result()
        leaving = cluster.service("annex").member(2)
        cluster.service("tower").watch(leaving).result()

        cluster.scale("annex", 2).result()

        assert until(lambda: cluster.service("tower").told().result()) == [("<Ref annex/2>", "shutdown")]
        with pytest.raises(ActorStopped):
            leaving.cook("steak").result()


class TestClients:
    def test_an_app_runs_once(self, cluster: Cluster, venue: Any) -> None:
        began_at = time.monotonic()

        with pytest.raises(AlreadyStarted, match=f"app {cluster.app_name!r} runs already: stage pid"):
            App(name=cluster.app_name).run(address=venue.address).start()

        assert time.monotonic() - began_at < 2

    def test_another_process_connects_without_ray(self, cluster: Cluster) -> None:
        program = (
            "import sys\n"
            "from supervisors import connect\n"
            f"with connect({cluster.app_name!r}) as cluster:\n"
            "    print(cluster.service('kitchen').cook('steak').result())\n"
            "assert 'ray' not in sys.modules\n"
        )

        result = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

        assert result.stdout == "steak from the grill\n"
        assert cluster.service("kitchen").cook("steak").result()

    def test_an_unknown_app_is_refused_with_the_nearest_name(self, cluster: Cluster) -> None:
        with pytest.raises(NotFound, match=f"did you mean {cluster.app_name!r}"):
            connect(cluster.app_name[:-1] + "x")

    def test_a_closed_client_says_so_and_the_app_goes_on(self, cluster: Cluster) -> None:
        client = connect(cluster.app_name).open()
        client.close()
        client.close()

        with pytest.raises(ActorError, match="closed"):
            client.ps().result()
        assert cluster.ps().result()["app"] == cluster.app_name

    async def test_the_same_objects_are_awaited_in_async_code(self, cluster: Cluster) -> None:
        async with connect(cluster.app_name) as client:
            kitchen = client.service("kitchen", Chef)
            assert await kitchen.ask(Chef.cook, "steak") == "steak from the grill"
            assert [course async for course in kitchen.courses(["soup"])] == ["soup from the grill"]
            dishes = await asyncio.gather(*(kitchen.cook(dish) for dish in "abc"))
            assert dishes == [f"{dish} from the grill" for dish in "abc"]
            outcomes = await kitchen.broadcast(Chef.who)
            assert all(outcome.ok for outcome in outcomes.values())
            assert (await client.nodes())[0]["alive"] is True
            assert [event["event"] async for event in client.events(last=1)]


def test_questions_have_stable_keys(cluster: Cluster) -> None:
    ps = cluster.ps().result()
    tree = cluster.tree().result()

    assert {"app", "stage", "services", "members"} <= set(ps)
    assert {"pid", "epoch"} <= set(ps["stage"])
    assert {"name", "state", "size", "ready", "restarts", "reason"} <= set(ps["services"][0])
    assert {
        "name",
        "service",
        "state",
        "incarnation",
        "pid",
        "node",
        "restarts",
        "last_exit",
        "reason",
    } <= set(ps["members"][0])
    assert [service["name"] for service in tree["children"]] == ["kitchen", "annex", "hall", "tower"]
    assert [member["name"] for member in tree["children"][0]["children"]] == [
        "kitchen/0",
        "kitchen/1",
        "kitchen/2",
    ]
