"""What a client of an app sends, with a stage and a kitchen that the test plays itself: no Ray, no house."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import Actor, ActorSystem, InvalidArgument, Ref, Refusal
from actors.interceptors import Ended, Interception, Interceptor
from actors.testing import wait_until_sync
from actors.traces import Trace
from actors.tracing import current_baggage, current_trace
from actors.transport import open_nng
from supervisors import App, Cluster, Service, connect, settings
from supervisors.app import Run
from supervisors.registry import REGISTRY_NAME, MemberView, ServiceView

APP = "tavern"
SPAN = Trace.new()


class Chef(Actor):
    """Says what came along with each dish."""

    async def cook(self, dish: str) -> tuple[str, dict[str, str]]:
        return str(current_trace()), dict(current_baggage())

    async def courses(self, *dishes: str) -> AsyncIterator[str]:
        for _ in dishes:
            yield str(current_trace())


class PlayedStage(Actor):
    """As much of a stage as a client needs."""

    def __init__(self, *views: ServiceView) -> None:
        self.views = [view.to_plain() for view in views]
        self.subscriber = ""

    async def subscribe(self, address: str) -> list[tuple[Any, ...]]:
        self.subscriber = address
        return self.views

    async def publish(self, *views: ServiceView) -> None:
        registry: Ref[Any] = self.context.system.ref(f"{self.subscriber}#{REGISTRY_NAME}")
        await registry.update([view.to_plain() for view in views])

    async def wait_ready(self) -> dict[str, Any]:
        return {}

    async def ps(self) -> dict[str, Any]:
        return {"app": APP}

    async def scale(self, service: str, size: int) -> dict[str, Any]:
        return {"size": size}

    async def stop_app(self) -> None: ...


class Pack(Interceptor):
    """Gives all that is sent a trace, and notes what passes and how it ended."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []
        self.others: list[str] = []
        self.outcomes: list[BaseException | None] = []

    def on_send(self, call: Interception) -> Ended:
        self.sent.append((call.what, call.target, call.method))
        call.trace, call.baggage = SPAN, {"table": "7"}
        return self.outcomes.append

    def on_handle(self, call: Interception) -> None:
        self.others.append(f"handle {call.target}.{call.method}")

    def on_spawn(self, call: Interception) -> None:
        self.others.append(f"spawn {call.target}")


class RefuseAll(Interceptor):
    """Makes every mistake there is."""

    def on_send(self, call: Interception) -> None:
        raise Refusal(f"{call.method}: not today")

    on_handle = on_spawn = on_send


def view_of(system: ActorSystem, name: str, *, version: int = 1) -> ServiceView:
    member = MemberView(f"{name}/0", 0, "running", 1, system.address)
    return ServiceView(name, version, "running", "", 5.0, "least_busy", (member,), 1)


@pytest.fixture
def theatre(run_root: Path) -> Iterator[ActorSystem]:
    """Stage and kitchen in one system, on a thread of its own, with a record to find them by."""
    directory = settings.ensure_private_dir(settings.app_dir(APP))
    key_path = settings.make_key(Path(directory) / settings.KEY_NAME)
    with ActorSystem(transport=open_nng(str(directory)), key=settings.read_key(key_path), sinks=()) as system:
        for name in ("kitchen", "grill"):
            system.options(name=f"{name}/0").spawn(Chef)
        system.options(name="stage").spawn(PlayedStage, view_of(system, "kitchen"))
        start_time = settings.process_start_time(os.getpid())
        assert start_time is not None
        settings.StageRecord(system.address, "0", os.getpid(), start_time, 1, str(key_path), APP).write(
            settings.record_path(APP)
        )
        yield system
    shutil.rmtree(directory)


@pytest.fixture
def no_house(theatre: ActorSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of apps find the played stage."""
    monkeypatch.setattr(Run, "_open_house", lambda run: None)


@contextlib.contextmanager
def connected(*interceptors: Interceptor) -> Iterator[Cluster]:
    with connect(APP, interceptors=interceptors) as cluster:
        yield cluster


@contextlib.contextmanager
def run(*interceptors: Interceptor) -> Iterator[Cluster]:
    with App(Service("kitchen", Chef), name=APP).run(interceptors=list(interceptors)) as cluster:
        yield cluster


both_ways = pytest.mark.parametrize("opened", [connected, run])
Opened = Callable[..., contextlib.AbstractContextManager[Cluster]]


@both_ways
@pytest.mark.usefixtures("no_house")
def test_what_a_program_sends_to_services_passes_its_interceptors(opened: Opened) -> None:
    pack = Pack()
    with opened(pack) as cluster:
        kitchen = cluster.service("kitchen")

        answers = [
            kitchen.cook("asked").result(),
            kitchen.ask(Chef.cook, "asked typed").result(),
            kitchen.member(0).cook("asked of a member").result(),
            *(outcome.unwrap() for outcome in kitchen.broadcast(Chef.cook, "asked of all").result().values()),
        ]
        streamed = list(kitchen.courses("soup", "fish"))
        kitchen.tell(Chef.cook, "told").result()
        kitchen.options(reliable=True).tell(Chef.cook, "told reliably").result()
        wait_until_sync(lambda: len(pack.outcomes) == 7)

    assert pack.sent == [
        ("ask", "kitchen", "cook"),
        ("ask", "kitchen", "cook"),
        ("ask", "kitchen/0", "cook"),
        ("ask", "kitchen/0", "cook"),
        ("ask", "kitchen", "courses"),
        ("tell", "kitchen/0", "cook"),
        ("tell", "kitchen/0", "cook"),
    ]
    assert pack.outcomes == [None] * 7
    spans = [Trace.parse(span) for span in (*(span for span, _ in answers), *streamed)]
    assert [span.trace_id for span in spans if span is not None] == [SPAN.trace_id] * 6
    assert [baggage for _, baggage in answers] == [{"table": "7"}] * 4


@pytest.mark.usefixtures("no_house")
async def test_it_is_the_same_in_async_code() -> None:
    packs = [Pack(), Pack()]
    async with connect(APP, interceptors=packs[:1]) as cluster:
        await cluster.service("kitchen").cook("soup")
    async with App(Service("kitchen", Chef), name=APP).run(interceptors=packs[1:]) as cluster:
        await cluster.service("kitchen").cook("soup")

    assert [pack.sent for pack in packs] == [[("ask", "kitchen", "cook")]] * 2


@both_ways
@pytest.mark.usefixtures("no_house")
def test_orders_questions_and_news_of_members_pass_none(opened: Opened, theatre: ActorSystem) -> None:
    """What refuses all that passes it keeps nobody from looking after the app."""
    pack = Pack()
    with opened(pack, RefuseAll()) as cluster:
        assert cluster.ps().result() == {"app": APP}
        assert cluster.scale("kitchen", 2).result() == {"size": 2}
        theatre.find("stage").publish(view_of(theatre, "grill")).result()
        grill = cluster.service("grill")
        assert (pack.sent, pack.others) == ([], [])

        with pytest.raises(Refusal, match="cook: not today"):
            grill.cook("steak").result()

    assert pack.sent == [("ask", "grill", "cook")]


@both_ways
@pytest.mark.usefixtures("no_house")
def test_without_interceptors_nothing_comes_along(opened: Opened) -> None:
    with opened() as cluster:
        assert cluster.service("kitchen").cook("soup").result() == ("None", {})


@pytest.mark.parametrize("value", [5, Pack(), [Pack], ["tracing"]])
def test_what_are_no_interceptors_is_refused_before_anything_begins(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"connect interceptors=.* is not a sequence of Interceptors"):
        connect(APP, interceptors=value)
    with pytest.raises(InvalidArgument, match=r"App\.run interceptors=.* is not a sequence of Interceptors"):
        App(Service("kitchen", Chef), name=APP).run(interceptors=value)
