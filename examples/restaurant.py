"""
A restaurant: the smallest app, two services in a file.

    python examples/restaurant.py
    understudy up examples/restaurant.py
    understudy call kitchen.cook '"steak"'
"""

from collections.abc import AsyncIterator

from actors import Actor
from supervisors import App, Resources, Service


class UnknownDish(LookupError):
    """Not on the menu."""


class Chef(Actor):
    """Cooks at one station."""

    expected = (UnknownDish,)  # an answer, not a crash

    def __init__(self, station: str = "grill") -> None:
        self.station = station

    async def cook(self, dish: str) -> str:
        if dish == "unicorn":
            raise UnknownDish(dish)
        return f"{dish} from the {self.station}, by {self.context.name}"

    async def courses(self, menu: list[str]) -> AsyncIterator[str]:
        for dish in menu:
            yield await self.cook(dish)


class Cellar(Actor):
    """Knows which wine goes with what."""

    async def pour(self, dish: str) -> str:
        return "red" if dish == "steak" else "white"


app = App(
    Service("kitchen", Chef, args=("grill",), size=2, resources=Resources(cpu=0.25)),
    Service("cellar", Cellar),
)

if __name__ == "__main__":
    with app.run() as cluster:
        kitchen, cellar = cluster.service("kitchen"), cluster.service("cellar")
        print(kitchen.cook("steak").result(), "with", cellar.pour("steak").result(), "wine")
        print("a unicorn?", repr(kitchen.cook("unicorn").outcome().error))
        for course in kitchen.courses(["soup", "fish", "cake"]):
            print(course)
        cluster.scale("kitchen", 4).result()
        print(sorted(kitchen.broadcast(Chef.cook, "toast").result()))
