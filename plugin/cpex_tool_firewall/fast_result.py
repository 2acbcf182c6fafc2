# SPDX-License-Identifier: Apache-2.0
"""Makes a hook result in a third of the time its constructor takes. The only place that knows pydantic's
insides, with ModelCopier in native/bindings/screener.cc.

Every allowed call returns a result with metadata of its own. Building it the ordinary way validates ten
fields of which nine are always the same: 1.2 us, more than the rest of the hook. So one result is built the
ordinary way, and every further one is a copy of it, made as pydantic's own BaseModel.__copy__ makes copies: a
new instance that gets its __dict__ and the three slots directly. Each copy has its own containers; nothing
mutable is shared.

maker() compares its first copy with an ordinary result. When pydantic or cpex ever change so that the two
differ, it gives back the ordinary constructor: slower, never wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from ._native import ModelCopier


def maker(result: type[BaseModel]) -> Callable[[dict[str, Any]], Any]:
    """A function that does what ``result(metadata=...)`` does. It keeps the dict, as that does."""

    def ordinary(metadata: dict[str, Any]) -> Any:
        return result(metadata=metadata)

    fast = _copier(result)
    if fast is None or not same(fast({"maker": {"checked": True}}), ordinary({"maker": {"checked": True}})):
        return ordinary
    return fast


def same(one: BaseModel, other: BaseModel) -> bool:
    """Whether two results cannot be told apart, private parts included."""
    return (
        type(one) is type(other)
        and one == other
        and list(one.__dict__.items()) == list(other.__dict__.items())
        and one.__pydantic_fields_set__ == other.__pydantic_fields_set__
        and one.__pydantic_extra__ == other.__pydantic_extra__
        and one.__pydantic_private__ == other.__pydantic_private__
    )


def _copier(result: type[BaseModel]) -> Callable[[dict[str, Any]], Any] | None:
    sample = result(metadata={})
    if sample.__pydantic_extra__ is not None or sample.__pydantic_private__ is not None:
        return None
    lists = []
    for name, value in sample.__dict__.items():
        if name == "metadata" or isinstance(value, bool | int | float | str | None):
            continue
        if value != [] or not isinstance(value, list):
            return None
        lists.append(name)
    return ModelCopier(sample, "metadata", lists)
