"""Checks of arguments, before any work: type, range and size, with one line that names the argument.

A wrong type is a TypeError, a value out of range a ValueError, an index out of range an IndexError.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from math import inf, isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from graphrec.data.graph import FriendGraph

MAX_TIME = 253_402_300_800
"""Seconds: the first second after the year 9999. Times lie within this distance of 1970."""

MAX_LIST_LENGTH = 10_000
"""The largest length of a padded list, unless the graph has more users."""

MAX_SIZE = 2**31 - 1
"""The largest value of a count, unless another is given."""

INT64 = torch.iinfo(torch.int64)


def check_kind(name: str, value: Any, kind: type) -> None:
    """Raise TypeError, with the argument's name, unless a value is an instance of `kind`."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {kind.__name__}, got {_shown(value)}")


def check_count(name: str, value: Any, *, minimum: int = 1, maximum: int | None = MAX_SIZE) -> int:
    """Return a whole number as an int: a Python or NumPy integer, or a tensor of one integer.

    Raises:
        TypeError: it is not a whole number (a bool and 2.0 are not).
        ValueError: it lies outside minimum..maximum.
    """
    number = _whole(value)
    if number is None:
        raise TypeError(f"{name} must be a whole number, got {_shown(value)}")
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    if maximum is not None and number > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {number}")
    return number


def check_counts(*, minimum: int = 1, **values: Any) -> None:
    """Check several whole numbers with the same minimum, given by name, as `check_count` does."""
    for name, value in values.items():
        check_count(name, value, minimum=minimum)


def check_seed(seed: Any) -> int:
    """Return a seed as an int: a whole number that fits into int64."""
    return check_count("seed", seed, minimum=INT64.min, maximum=INT64.max)


def check_number(
    name: str,
    value: Any,
    *,
    minimum: float = -inf,
    maximum: float = inf,
    above: float = -inf,
    below: float = inf,
) -> float:
    """Return a finite number with minimum <= value <= maximum and above < value < below, as a float.

    Raises:
        TypeError: it is not a number.
        ValueError: it is not finite, or out of range.
    """
    if isinstance(value, Tensor) and value.dim() == 0 and not value.is_complex():
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = inf
    if not isfinite(number) or not (minimum <= number <= maximum and above < number < below):
        low = f"above {above:g}" if above > -inf else f"at least {minimum:g}" if minimum > -inf else ""
        high = f"below {below:g}" if below < inf else f"at most {maximum:g}" if maximum < inf else ""
        raise ValueError(f"{name} must be {' and '.join(filter(None, (low, high))) or 'finite'}, got {value}")
    return number


def check_dropout(dropout: Any) -> float:
    """Return a dropout probability as a float: from 0 to below 1."""
    return check_number("dropout", dropout, minimum=0.0, below=1.0)


def check_flags(**values: Any) -> None:
    """Raise TypeError unless all arguments, given by name, are True or False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, got {_shown(value)}")


def check_choice(name: str, value: Any, known: Collection[Any]) -> None:
    """Raise ValueError, with all known values, unless a value is one of them."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"unknown {name} {value!r}; there are {', '.join(map(str, known))}")


def check_names(name: str, values: Any, known: Collection[str], *, empty: bool) -> tuple[str, ...]:
    """Return distinct known names as a tuple, in the order given.

    Args:
        name: name of the argument.
        values: the names.
        known: all names that are allowed.
        empty: whether an empty collection is allowed.

    Raises:
        TypeError: `values` is a single string, or not a collection.
        ValueError: it is empty, or holds a name twice.
        KeyError: a name is unknown.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be several names, such as [{values!r}], got {_shown(values)}")
    names = tuple(values)
    if not names and not empty:
        raise ValueError(f"{name} must hold at least one of {', '.join(known)}; it is empty")
    for one in names:
        if one not in known:
            raise KeyError(f"unknown {name.removesuffix('s')} {one!r}; there are {', '.join(known)}")
    if len(set(names)) < len(names):
        twice = next(one for one in names if names.count(one) > 1)
        raise ValueError(f"{name} holds {twice!r} more than once")
    return names


def check_time(name: str, time: Any) -> int:
    """Return a time in whole seconds as an int.

    Raises:
        TypeError: it is not a whole number, such as a float or NaN.
        ValueError: it is further from 1970 than `MAX_TIME`.
    """
    moment = _whole(time)
    if moment is None:
        raise TypeError(f"{name} must be in whole seconds, got {_shown(time)}")
    if abs(moment) > MAX_TIME:
        raise ValueError(_beyond(name, moment))
    return moment


def check_until(until: Any, validate_until: Any = None) -> tuple[int, int | None]:
    """Return the ends of training and of validation in whole seconds, as ints; None without validation.

    Raises:
        TypeError, ValueError: as `check_time`, or validation would end before it begins.
    """
    until = check_time("until", until)
    if validate_until is None:
        return until, None
    end = check_time("validate_until", validate_until)
    if end <= until:
        raise ValueError(
            f"validate_until must be later than until, got {end} and {until}: "
            "validation judges the events between them"
        )
    return until, end


def check_index(name: str, index: Any, size: int, *, shape: Sequence[int | None] = (None,)) -> Tensor:
    """Return indices 0..size-1 as int64 on the CPU.

    Args:
        name: name of the argument.
        index: the tensor, of any integer type.
        size: the number of things indexed.
        shape: lengths of its dimensions, None for any length.

    Raises:
        TypeError: it is not a tensor of integers.
        ValueError: it has another shape.
        IndexError: an index is out of range.
    """
    if not isinstance(index, Tensor):
        raise TypeError(f"{name} must be a tensor of integers, got {_shown(index)}")
    if index.dtype.is_floating_point or index.dtype.is_complex or index.dtype == torch.bool:
        raise TypeError(f"{name} must be a tensor of integers, got {index.dtype}")
    if index.dim() != len(shape) or any(
        wanted not in (None, length) for wanted, length in zip(shape, index.shape, strict=True)
    ):
        wanted_shape = ", ".join("n" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} must be [{wanted_shape}], got {list(index.shape)}")
    found: Tensor = index.detach().to("cpu", torch.int64)
    if found.numel():
        low, high = (int(bound) for bound in found.aminmax())
        if low < 0 or high >= size:
            outside = low if low < 0 else high
            there = f"outside 0..{size - 1}" if size else "where there is nothing to point to"
            raise IndexError(f"{name} {outside} lies {there}")
    return found


def check_exclude(exclude: Any, num_rows: int, num_users: int) -> tuple[Tensor, Tensor]:
    """Return excluded pairs (row [M], user [M]) as int64 on the CPU; empty if `exclude` is None.

    Raises:
        TypeError, ValueError, IndexError: as `check_index`, or it is not a pair of equal lengths.
    """
    if exclude is None:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    if not isinstance(exclude, (tuple, list)) or len(exclude) != 2:
        raise TypeError(f"exclude must be a pair (row [M], user [M]), got {_shown(exclude)}")
    row = check_index("exclude: row", exclude[0], num_rows)
    user = check_index("exclude: user", exclude[1], num_users)
    if len(row) != len(user):
        raise ValueError(f"exclude: {len(row)} rows and {len(user)} users; each row needs one user")
    return row, user


def check_list_length(k: Any, num_users: int) -> int:
    """Return the length k of a list as an int: from 1 to `MAX_LIST_LENGTH` or the number of users.

    Raises:
        TypeError, ValueError: k is not such a number.
    """
    length = check_count("k", k, maximum=None)
    longest = max(num_users, MAX_LIST_LENGTH)
    if length > longest:
        raise ValueError(f"k must be at most {longest} among {num_users} users, got {length}")
    return length


def check_graph(graph: Any) -> None:
    """Raise TypeError unless an argument is a `FriendGraph`."""
    if not hasattr(graph, "user_ids") or not hasattr(graph, "events"):
        raise TypeError(f"graph must be a FriendGraph, got a {type(graph).__name__}")


def check_query(graph: FriendGraph, query: Any) -> None:
    """Check that a query's users, actions and times fit a graph.

    Raises:
        TypeError: it is not a `Query`.
        ValueError: it is not on the CPU, or a time lies beyond the year 9999.
        IndexError: a user or action that the graph does not have.
    """
    parts = [getattr(query, name, None) for name in ("user", "time", "action")]
    if not all(isinstance(part, Tensor) for part in parts):
        raise TypeError(f"query must be a Query, got {_shown(query)}")
    if any(part.device.type != "cpu" for part in (query.user, query.time, query.action)):
        raise ValueError("queries must be on the CPU, where the index of the graph is")
    check_index("user index", query.user, graph.num_users)
    check_index("action index", query.action, len(graph.actions))
    check_times("the time of a query", query.time)


def check_times(name: str, time: Tensor) -> None:
    """Raise ValueError if any of several times, int64 seconds, is further from 1970 than `MAX_TIME`."""
    if time.numel():
        for moment in (int(bound) for bound in time.aminmax()):
            if abs(moment) > MAX_TIME:
                raise ValueError(_beyond(name, moment))


def check_folder(folder: Any) -> Path:
    """Return a folder, given as text or path, as a path.

    Raises:
        TypeError: it is neither.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder must be a path, got {_shown(folder)}")
    return Path(folder)


def _whole(value: Any) -> int | None:
    """An integer of any type as an int; None for anything else."""
    if isinstance(value, Tensor):
        other = value.dtype.is_floating_point or value.dtype.is_complex or value.dtype == torch.bool
        return None if other or value.dim() else int(value)
    if isinstance(value, bool) or not isinstance(value, Integral):
        return None
    return int(value)


def _beyond(name: str, moment: int) -> str:
    return f"{name} lies beyond the year 9999: {moment}; times are in seconds (are these milliseconds?)"


def _shown(value: Any) -> str:
    """A value for a message: its repr, or its type where that would be long."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} {value.dtype}"
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"
