"""Raw ids of users: the rule for when two are equal, and the map to indices 0..N-1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from operator import index
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graphrec.data.errors import DataError, RowError
from graphrec.data.id_search import SortedIds, as_bytes, search_keys

if TYPE_CHECKING:  # ids are parsed without torch, which takes seconds to import
    from torch import Tensor

Id: TypeAlias = int | str
"""A raw id. `7` and `"7"` are the same; `"007"`, `"+7"` and `"7.0"` are other texts."""

MAX_ID_BYTES = 255
INTEGER_FORM = r"0|-?[1-9][0-9]*"
"""Text of this form, if it fits into int64, is an integer; all other text is a string."""

IDS_PER_SEARCH = 32
"""Users for each id that is looked up, from which on searching is faster than hashing all ids."""

MISSING_WORDS = (
    *("nan", "NaN", "NAN", "-nan", "-NaN", "NULL", "null", "None", "NA", "N/A", "n/a", "<NA>", "NaT", r"\N"),
    *("#N/A", "#N/A N/A", "#NA", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
"""Words for a missing value, which cannot be ids."""

_DECIMAL_FORM = r"-?[0-9]+(\.0*|(\.[0-9]*)?[eE][+-][0-9]+)"
_INT64 = range(-(2**63), 2**63)
# One pattern for Python's `re` and for Arrow's RE2, so that single ids and columns are judged alike.
_BAD_FORM = "|".join(
    [
        "",
        r"(?s:.*\x00.*)",
        r'(?s:".*)',
        r'(?s:.*")',
        _DECIMAL_FORM,
        *(re.escape(word) for word in MISSING_WORDS),
    ]
)


def parse_id(value: object) -> Id:
    """Parse an id: the one rule by which every log, table, command and call reads ids.

    Text is trimmed of white space. In the form `0|-?[1-9][0-9]*` it is an integer, if it fits into int64; all
    other text is a string, compared character by character (no case folding, no Unicode normalization).
    Integers of NumPy, PyTorch and Arrow are integers.

    Raises:
        TypeError: the value is neither an integer nor text (None, a float, a bool, bytes, a list, ...).
        DataError: no log can hold such text: it is empty, longer than 255 bytes, not UTF-8, has a zero byte,
            begins or ends with a double quote, is an integer written as a decimal (`7.0`), or a word for a
            missing value (`nan`, `NULL`, ...).
    """
    text = _trimmed(value)
    fault = id_fault(text)
    if fault:
        raise DataError(f"{_shown(text)} cannot be a user id: {fault}")
    if re.fullmatch(INTEGER_FORM, text) and int(text) in _INT64:
        return int(text)
    return text


def id_text(value: object) -> str:
    """Return the id of `parse_id` as text: two values are the same id exactly if their texts are equal."""
    return str(parse_id(value))


def id_list(values: Any, name: str = "users") -> list[Any]:
    """Return a list of ids, not yet parsed; raises TypeError for a single id in place of a list."""
    if _is_single(values):
        meant = "" if values is None else f"; did you mean [{_shown(values)}]?"
        raise TypeError(f"{name} must be a list of ids, got {_shown(values)}{meant}")
    return list(values)


def id_pairs(values: Any, name: str = "blocked") -> list[tuple[Any, Any]]:
    """Return a list of pairs of ids, not yet parsed; raises TypeError for anything else."""
    out = []
    for pair in id_list(values, name):
        if _is_single(pair) or len(both := list(pair)) != 2:
            raise TypeError(f"{name} must be a list of pairs of ids, got {_shown(pair)} in it")
        out.append((both[0], both[1]))
    return out


def id_fault(text: str) -> str | None:
    """Return the reason why a trimmed text cannot be an id; None if it can."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "it is not valid UTF-8"
    if size > MAX_ID_BYTES:
        return f"it has {size} bytes, more than the {MAX_ID_BYTES} allowed"
    if not re.fullmatch(_BAD_FORM, text):
        return None
    if not text:
        return "it is empty"
    if "\0" in text:
        return "it contains a zero byte"
    if '"' in (text[0], text[-1]):
        return (
            "a double quote at its end is left of a quoted field; remove blanks before quotes, or the quotes"
        )
    if text in MISSING_WORDS:
        return "this is how tables write a missing value; leave the row out, or give the person another id"
    return "it is an integer written as a decimal, as pandas does after a missing value"


def bad_ids(text: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Tell which trimmed texts, none missing, have an `id_fault`: [n] bool."""
    bad = pc.match_substring_regex(text, rf"\A(?:{_BAD_FORM})\z")
    return np.asarray(pc.or_(bad, pc.greater(pc.binary_length(text), MAX_ID_BYTES)))


def forbid_bad_ids(text: pa.Array | pa.ChunkedArray, *, where: str, column: str) -> None:
    """Raise DataError naming the first row whose trimmed text cannot be an id."""
    rows = np.flatnonzero(bad_ids(text))
    if len(rows):
        value = text[int(rows[0])].as_py()
        raise RowError(
            where,
            rows[0],
            column,
            f"{_shown(value)} cannot be a user id: {id_fault(value)}"
            + (f"; {integer_remedy(column)}" if re.fullmatch(_DECIMAL_FORM, value) else ""),
        )


def integer_remedy(column: str) -> str:
    """Return the advice for integers that were written as decimals."""
    return f'write integers, for example df["{column}"].astype("Int64") in pandas'


class UserIds:
    """A two-way map between raw ids (all integers, or all strings) and indices.

    The map is one tensor, so that it lives in a node store, follows PyG's subgraph operations and is
    saved without pickled objects.

    Args:
        raw: [N] int64 for integer ids, or [N, L] uint8 for strings: UTF-8, padded with zeros.
    """

    def __init__(self, raw: Tensor) -> None:
        import torch

        if (raw.dim(), raw.dtype) not in ((1, torch.int64), (2, torch.uint8)):
            raise DataError(f"raw ids must be [N] int64 or [N, L] uint8, got {list(raw.shape)} {raw.dtype}")
        self.raw = raw

    @classmethod
    def from_values(cls, values: pa.Array) -> UserIds:
        """Build the map from distinct Arrow values, int64 or string, in index order."""
        import torch

        if pa.types.is_integer(values.type):
            return cls(torch.from_numpy(values.cast(pa.int64()).to_numpy(zero_copy_only=False).copy()))
        texts = [value.encode() for value in values.to_pylist()]
        longest = max(len(text) for text in texts)
        if any(b"\0" in text for text in texts):
            raise DataError("a user id contains a zero byte")
        if longest > MAX_ID_BYTES:
            raise DataError(f"a user id has {longest} bytes, more than the {MAX_ID_BYTES} allowed")
        encoded = np.array(texts, dtype=f"S{longest}")
        return cls(torch.from_numpy(encoded.view(np.uint8).reshape(len(texts), longest)))

    @cached_property
    def values(self) -> pa.Array:
        """The ids as an Arrow array in index order, int64 or string."""
        raw = self.raw.cpu().numpy()
        if raw.ndim == 1:
            return pa.array(raw)
        return pa.array([value.decode() for value in as_bytes(raw).tolist()], type=pa.string())

    @cached_property
    def sorted(self) -> SortedIds:
        """The ids in order, to search for a few."""
        return SortedIds(self.raw.cpu().numpy())

    def __len__(self) -> int:
        return self.raw.size(0)

    def __repr__(self) -> str:
        kind = "integer" if self.raw.dim() == 1 else "string"
        return f"UserIds({len(self)} {kind} ids)"

    def index(self, ids: Iterable[Id] | pa.Array) -> Tensor:
        """Return the indices of raw ids, read as by `parse_id`.

        Returns:
            [n] int64.

        Raises:
            KeyError: an id is not among the users; the message names it.
            TypeError: a value is neither an integer nor text, or `ids` is a single id.
        """
        wanted = ids if isinstance(ids, (pa.Array, pa.ChunkedArray, np.ndarray)) else id_list(ids)
        found = self.find(wanted)
        unknown = (found < 0).nonzero().squeeze(1)
        if unknown.numel():
            text = _trimmed(wanted[int(unknown[0])])
            fault = id_fault(text)
            if fault is None and self.raw.dim() == 1 and not re.fullmatch(INTEGER_FORM, text):
                fault = "this graph's user ids are integers"
            raise KeyError(
                f"unknown user id {_shown(text)} ({unknown.numel()} of {len(wanted)} ids are unknown)"
                + (f": {fault}" if fault else "")
            )
        return found

    def find(self, ids: Iterable[Id] | pa.Array) -> Tensor:
        """Return the indices of raw ids, read as by `parse_id`: [n] int64, -1 for unknown ids.

        Raises:
            TypeError: a value is neither an integer nor text, or `ids` is a single id.
        """
        import torch

        wanted: Any = ids
        if isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype.kind in "iu":
            wanted = pa.array(ids)
        is_column = isinstance(wanted, (pa.Array, pa.ChunkedArray)) and not wanted.null_count
        if not is_column or wanted.type not in (pa.int64(), pa.string()):
            wanted = _as_column(id_list(wanted))
        if pa.types.is_string(wanted.type):
            wanted = pc.utf8_trim_whitespace(wanted)
            if self.raw.dim() == 1:
                wanted = _integers(wanted)
        elif self.raw.dim() == 2:
            wanted = wanted.cast(pa.string())
        return torch.from_numpy(self._positions(wanted))

    def _positions(self, wanted: Any) -> np.ndarray:
        """Positions [n] int64 of a column of int64 or text, as the ids are; -1 for unknown ids and nulls."""
        if len(wanted) * IDS_PER_SEARCH < len(self):
            keys, known = search_keys(wanted)
            return np.where(known, self.sorted.find(keys), -1)
        found = pc.index_in(wanted, value_set=self.values)
        return np.asarray(pc.fill_null(found, -1)).astype(np.int64)

    def narrowed(self) -> UserIds:
        """Return the same ids; text is padded to the longest id."""
        if self.raw.dim() == 1:
            return self
        used = self.raw.any(0).nonzero()
        return UserIds(self.raw[:, : int(used[-1]) + 1].clone())

    def lookup(self, indices: Tensor | Sequence[int]) -> list[Id]:
        """Return the raw ids of user indices, in the order given."""
        import torch

        rows = torch.as_tensor(indices, dtype=torch.int64).reshape(-1).cpu()
        raw = self.raw.cpu()[rows]  # these rows alone: a growing graph has new ids at every append
        if raw.dim() == 1:
            return cast(list[Id], raw.tolist())
        return [value.decode() for value in as_bytes(raw.numpy()).tolist()]


def plain_ids(values: pa.Array) -> pa.Array:
    """Return integer ids if all strings are plain decimal integers, and else the strings.

    "007" and "+7" stay strings, distinct from "7".
    """
    if not pa.types.is_string(values.type):
        return values.cast(pa.int64())
    integers = _integers(values)
    return values if integers.null_count else integers


def _integers(text: Any) -> Any:
    """Each text as int64 if it is a plain decimal integer, and else null."""
    nothing = pa.scalar(None, pa.string())
    short = pc.match_substring_regex(text, r"\A(?:0|-?[1-9][0-9]{0,17})\z")
    out = pc.if_else(short, text, nothing).cast(pa.int64())
    long = pc.fill_null(pc.match_substring_regex(text, r"\A-?[1-9][0-9]{18}\z"), False)
    if pc.any(long).as_py():
        numbers = [int(value) for value in text.filter(long).to_pylist()]
        fits = pa.array([number if number in _INT64 else None for number in numbers], pa.int64())
        out = pc.replace_with_mask(out, long, fits)
    return out


def _as_column(ids: list[Any]) -> pa.Array:
    """Ids as int64 or text, null for text that cannot be an id; raises TypeError for other types."""
    kinds = set(map(type, ids))
    try:
        if kinds <= {int}:
            return pa.array(ids, pa.int64())
        if kinds == {str}:
            return pa.array(ids, pa.string())
    except (UnicodeEncodeError, OverflowError, pa.ArrowInvalid):
        pass
    texts = [_trimmed(value) for value in ids]
    return pa.array([text if id_fault(text) is None else None for text in texts], pa.string())


def _trimmed(value: object) -> str:
    """An integer or text as trimmed text, whether or not it can be an id; raises TypeError for others."""
    if isinstance(value, pa.Scalar):
        value = value.as_py()
    if isinstance(value, str):
        return value.strip()
    kind = str(getattr(value, "dtype", type(value).__name__))
    if "bool" not in kind and getattr(value, "shape", ()) == ():
        try:
            number = index(cast(Any, value))
            return str(number) if abs(number) < 10**MAX_ID_BYTES else "9" * (MAX_ID_BYTES + 1)
        except TypeError:
            pass
    raise TypeError(f"a user id is an integer or text, got {_shown(value)} ({type(value).__name__})")


def _is_single(value: object) -> bool:
    text_or_scalar = isinstance(value, (str, bytes, pa.Scalar)) or getattr(value, "shape", None) == ()
    return text_or_scalar or not hasattr(value, "__iter__")


def _shown(value: object) -> str:
    """A value for a message of one line."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an integer of thousands of digits
        return "a huge integer"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
