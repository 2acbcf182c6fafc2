# SPDX-License-Identifier: Apache-2.0
"""Arguments for invented calls: mostly values a person has used before, sometimes new ones, of every kind."""

import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

NEW = 0.06  # of the values are new, once there are some
ENOUGH = 12  # values of a kind a person comes back to
MOST = {"cell": 12}  # different values of a kind a person ever gives: more would fill the engine's tables
MOST_OF_OTHERS = 30
WORDS = ["alpha", "beta", "gamma", "delta", "report", "draft", "final", "invoice", "müller", "東京", "x"]


class InventedArguments:
    def __init__(self, random_: random.Random) -> None:
        self.random = random_
        self.used: defaultdict[tuple[str, str, str], list[Any]] = defaultdict(list)  # by tenant, user, kind
        self.ever: defaultdict[tuple[str, str, str], list[Any]] = defaultdict(list)

    def of(self, tenant: str, user: str, tool: str) -> dict[str, Any]:
        def some(kind: str) -> Any:
            return self._value(tenant, user, kind)

        about = tool.rpartition("_")[2]
        if self.random.random() < 0.05:
            return {}
        if about == "mail":
            number = self.random.choice((1, 1, 1, 2, 10))
            return {"recipients": [some("email") for _ in range(number)], "subject": some("text")}
        if about == "order":
            lines = [{"sku": some("word"), "count": some("count")} for _ in range(self.random.randint(0, 3))]
            order = {"account": some("account"), "amount": some("amount"), "lines": lines}
            if self.random.random() < 0.1:
                order["id"] = f"r-{self.random.randrange(10**9)}"  # never the same
            return order
        if about == "row":
            return {f"column{n}": some("cell") for n in range(self.random.choice((2, 3, 3, 20)))}
        if about == "file":
            return {"path": some("path"), "options": {"force": some("flag"), "mode": None}}
        return {"user": some("word"), "link": some("link"), "note": some("text")}

    def _value(self, tenant: str, user: str, kind: str) -> Any:
        used = self.used[tenant, user, kind]
        if len(used) >= ENOUGH and self.random.random() >= NEW:
            return self.random.choice(used)
        value = self._new(kind, self.ever[tenant, user, kind])
        if len(used) < ENOUGH:
            used.append(value)
        elif self.random.random() < 0.5:
            used[self.random.randrange(ENOUGH)] = value
        return value

    def _new(self, kind: str, ever: list[Any]) -> Any:
        if len(ever) >= MOST.get(kind, MOST_OF_OTHERS):
            return self.random.choice(ever)
        make: Callable[[], Any] = getattr(self, f"_{kind}")
        value = make()
        ever.append(value)
        return value

    def _word(self) -> str:
        return f"{self.random.choice(WORDS)}{self.random.randrange(40)}"

    def _cell(self) -> str:
        return self._word()

    def _text(self) -> str:
        return " ".join(self.random.choice(WORDS) for _ in range(self.random.choice((2, 4, 30))))

    def _count(self) -> int:
        return self.random.choice((0, 1, 2, 3, 50, -4, 10**30))

    def _amount(self) -> float:
        return round(self.random.choice((1, 1, -1)) * self.random.lognormvariate(3, 2), 2)

    def _flag(self) -> bool:
        return self.random.random() < 0.8

    def _host(self) -> str:
        ending = self.random.choice(("com", "co.uk", "internal", "technology"))
        return f"{self.random.choice(WORDS[:7])}{self.random.randrange(30)}.{ending}"

    def _email(self) -> str:
        return f"{self.random.choice(('a.b', 'C+d', 'e_f'))}{self.random.randrange(50)}@{self._host()}"

    def _link(self) -> str:
        return self.random.choice(
            (
                f"https://{self._host()}/{self._word()}?q=1",
                f"www.{self._host()}",
                f"{self._host()}/{self._word()}",
                f"http://10.0.{self.random.randrange(4)}.{self.random.randrange(250)}:8080/",
                self._host(),
                f"{self.random.randrange(9)}.{self.random.randrange(99)}",
            )
        )

    def _account(self) -> str:
        country = self.random.choice(("DE", "US", "", "ABCD", "ABCDE"))
        return f"{country}{self.random.randrange(10**9, 10**10)}"

    def _path(self) -> str:
        return self.random.choice(
            (
                f"/srv/{self._word()}/{self.random.randrange(3)}/{self._word()}.txt",
                f"C:\\data\\{self._word()}\\{self._word()}.doc",
                f"~/{self._word()}",
                f"{self._word()}.pdf",
                "/" + "/".join(self._word() for _ in range(60)),
            )
        )
