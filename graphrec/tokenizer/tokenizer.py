"""What every tokenizer does: from a graph up to a time to STUs that stay."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from graphrec.data import USER, DataError, FriendGraph, UserIds, as_indices
from graphrec.data.checks import (
    check_count,
    check_flags,
    check_folder,
    check_graph,
    check_seed,
    check_time,
)
from graphrec.data.precision import single_precision
from graphrec.nn import ResidualQuantizer
from graphrec.threads import one_intra_op_thread
from graphrec.tokenizer.canonical import marks, renumbered
from graphrec.tokenizer.names import joined
from graphrec.tokenizer.names import positions as positions
from graphrec.tokenizer.quality.report import (
    TokenizerQualityWarning,
    TokenizerReport,
    report_of_fit,
    with_raw_last_code,
)
from graphrec.tokenizer.stus import MAX_KEYS, STUs

FORMAT = "graphrec.Tokenizer/1"
MANIFEST, TENSORS, REPORT = "tokenizer.json", "tokenizer.pt", "report.json"

ROOM, KEPT_ROOM = 8, 2
"""Places for each user known at the fit, at least, where the codebook size follows their number; and at a
refit, where it is kept."""

SMALLEST, LARGEST = 4, 10_000
"""Codebook sizes that follow the number of users."""


MAX_CODEBOOKS, MAX_CODES = 62, 2**20
"""Codes of an STU, and codes to choose from, at most."""


class Before(NamedTuple):
    """What a refit starts from.

    Attributes:
        quantizer: the codebooks before, turned to where the vectors are now.
        codes: [M, L] int64, the codes before, as they were before collisions were resolved; -1 for the new.
        stus: [M, L] int64, and after.
    """

    quantizer: ResidualQuantizer
    codes: Tensor
    stus: Tensor


class Tokenizer(nn.Module, ABC):
    """Gives every user an STU: a short sequence of codes, coarse to fine, equal where people are alike.

    A subclass says where people stand (`embed`), and learns it, where it learns (`learn`). It is given a
    graph that holds nothing but the strict past, and in which nobody's number tells anything; it need not
    care for either. Its modules belong into the constructor, whose arguments are kept as attributes of their
    names; modules are reset before each fit, and saved with the rest.

    `fit` embeds everybody with an event strictly before `until`, quantises the vectors (balanced residual
    k-means), and gives all of them an STU. Newcomers get one from what is known of them strictly before the
    time of the first `encode` that finds anything, and keep it until a refit. Nobody's STU ever changes.
    Whoever nothing is known of has the *prior*, the codes of the mean vector, for the time being.

    Args:
        num_codebooks: L, codes of an STU.
        codebook_size: K, codes to choose from at each level; by default the smallest power of two from 4 on
            with K^L at least 8 times the users known at the fit, but at most 10,000. A refit keeps it while
            K^L is at least twice the users.
        unique: no two users have the same STU; otherwise they may, and are an ordered bucket.
        balanced: at the fit, no code serves more than 1.25 times the mean at its level.
        seed: fixes everything random.

    Attributes:
        quantizer: the codebooks, after the fit.
        until: seconds; the fit saw what is strictly older.
        before: at a refit, [M] int64: the number each user had before, -1 for the new. None at a fit.
    """

    quantizer: ResidualQuantizer
    until: int
    before: Tensor | None = None
    prior: Tensor
    _ids: UserIds
    _num_fitted: int
    _since: Tensor
    _wished: Tensor
    _distance: Tensor
    _report: TokenizerReport

    def __init__(
        self,
        *,
        num_codebooks: int = 3,
        codebook_size: int | None = None,
        unique: bool = True,
        balanced: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        num_codebooks = check_count("num_codebooks", num_codebooks, maximum=MAX_CODEBOOKS)
        if codebook_size is not None:
            codebook_size = check_count("codebook_size", codebook_size, maximum=MAX_CODES)
        if (codebook_size or SMALLEST) ** num_codebooks > MAX_KEYS:
            size = f"{codebook_size or SMALLEST}^{num_codebooks}"
            raise ValueError(f"{size} STUs are more than 2^62: ask for fewer codes or codebooks")
        check_flags(unique=unique, balanced=balanced)
        check_seed(seed)
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        self.unique, self.balanced, self.seed = unique, balanced, seed
        self._table: STUs | None = None
        self._looked_up: tuple[Tensor, int, Tensor] | None = None

    # What a subclass says

    def learn(self, graph: FriendGraph, until: int) -> None:
        """Learn from the graph. Everything random is drawn from torch's global generator, seeded before.

        Args:
            graph: people with an event strictly before `until`, and these events.
            until: seconds.
        """

    @abstractmethod
    def embed(self, graph: FriendGraph, users: Tensor, until: int) -> Tensor:
        """Where people stand, given what is known strictly before a time.

        Args:
            graph: nothing in it is as late as `until`. At the fit its users are 0..M-1; later, these keep
                their numbers, and those who have come since follow.
            users: [n] int64.
            until: seconds.

        Returns:
            [n, D] float32, finite; rows of 0 for those of whom the tokenizer can make nothing.
        """

    def quantise(
        self,
        vectors: Tensor,
        codebook_size: int,
        generator: torch.Generator,
        before: Before | None = None,
    ) -> ResidualQuantizer:
        """The codebooks for the vectors of a fit; by default residual k-means.

        Args:
            vectors: [M, D], of all users known at the fit.
            codebook_size: K.
            generator: for whatever is random.
            before: at a refit, what to start from.
        """
        quantizer = ResidualQuantizer(
            vectors.size(1), num_codebooks=self.num_codebooks, codebook_size=codebook_size
        )
        keep = None
        if before is not None:
            quantizer.codebooks.copy_(before.quantizer.codebooks)
            keep = before.codes
        quantizer.initialise(vectors, generator, balanced=self.balanced, keep=keep)
        return quantizer

    def drop(self, stays: Tensor) -> None:
        """Drop what is kept of single members, but of those who stay, [M] bool.

        The members of the fit come first, in the order of its graph. By default there is nothing to drop.
        """

    # What everybody asks

    @property
    def table(self) -> STUs:
        """The STUs of the members: who was known at the fit, and newcomers in the order they came."""
        if self._table is None:
            raise RuntimeError(f"{type(self).__name__} has to be fitted first: call fit(graph, until=time)")
        return self._table

    def fit(self, graph: FriendGraph, *, until: int) -> Self:
        """Give STUs to everybody with an event strictly before `until` (seconds), from those events alone.

        Raises:
            ValueError: there is no such event; or STUs are to be unique, and there are more users than STUs.
        """
        return self._fit(graph, until, None)

    def refit(self, graph: FriendGraph, *, until: int) -> Self:
        """Another one, fitted until a later time, that starts from what this one is, so that codes keep."""
        self.table  # noqa: B018  # fitted at all?
        return copy.deepcopy(self)._fit(graph, until, self)

    @single_precision()
    def encode(
        self, graph: FriendGraph, users: Tensor | Sequence[int | str], *, until: int | None = None
    ) -> Tensor:
        """STUs of users; newcomers of whom something is known by now are given theirs.

        Args:
            graph: the one of the fit or another, also of more users: people are known by their raw ids.
            users: raw ids, or [n] int64 indices into the graph.
            until: seconds; newcomers are judged by what is strictly older. By default all of the graph.

        Returns:
            [n, L] int64. Of newcomers of whom nothing is known, the prior; of those whose STU was given at a
            later time than `until`, what they would have been given at that time.

        Raises:
            KeyError, IndexError: an unknown user, named.
            ValueError: the fit saw events at or after `until`; or all STUs are taken.
        """
        self.table  # noqa: B018  # fitted at all?
        index, time = as_indices(graph, users), until
        if time is None:
            moments = graph.events().time
            time = max(self.until, int(moments[-1]) + 1) if len(moments) else self.until
        time = check_time("until", time)
        self._check_time(time)
        who, back = index.unique(return_inverse=True)
        member = self._members(graph)[who]
        lacks = (member < 0) | (self._since[member] > time)
        found, codes = self._welcome(graph, who[lacks], time)
        out = self.prior.repeat(len(who), 1)
        out[~lacks] = self.table.codes[member[~lacks]]
        out[torch.searchsorted(who, found)] = codes
        return out[back]

    def codes_before(self, graph: FriendGraph, time: int) -> Tensor:
        """Everyone's STU as it was given before a time, for training on events from then on.

        Returns:
            [N, L] int64; -1 for whoever had none.

        Raises:
            ValueError: the fit saw events at or after `time`.
        """
        self._check_time(time)
        member = self._members(graph)
        given = (member >= 0) & (self._since[member] <= time)
        return torch.where(given[:, None], self.table.codes[member], -1)

    def stus(self, graph: FriendGraph) -> STUs:
        """The two-way table by the indices of a graph; buckets list first who is nearest to their codes."""
        member = self._members(graph)
        codes = torch.where((member >= 0)[:, None], self.table.codes[member], -1)
        rank = self._distance.argsort(stable=True).argsort()
        return STUs(codes, self.table.codebook_size, rank[member])

    @property
    def report(self) -> TokenizerReport:
        """The report made by the fit; `evaluate_tokenizer` adds unseen ties and drift."""
        self.table  # noqa: B018
        return self._report

    def codes_of_fit(self, graph: FriendGraph) -> Tensor:
        """STUs of those known at the fit, to be judged by ties: [N, L] int64, -1 for others.

        The last code is as it was before collisions were resolved.
        """
        codes = with_raw_last_code(self.table.codes, self._wished)
        member = self._members(graph)
        return torch.where(((member >= 0) & (member < self._num_fitted))[:, None], codes[member], -1)

    def shared_codes(self, other: Tokenizer) -> tuple[Tensor, Tensor]:
        """The STUs that this tokenizer and another give to those known at both their fits: [n, L] each."""
        position = positions(other._ids, self._ids)[: other._num_fitted]
        here = (position >= 0) & (position < self._num_fitted)
        return self.table.codes[position[here]], other.table.codes[: other._num_fitted][here]

    def forget(self, users: Sequence[int | str]) -> None:
        """Drop all that is kept of people, given by raw ids; those who have no STU do not matter.

        Nobody else's STU changes, nor do the codebooks and the report, which are of all together. The
        STUs are free again, and should these people come back, they are newcomers.
        """
        member = self._ids.find(users)
        stays = torch.ones(len(self._ids), dtype=torch.bool)
        stays[member[member >= 0]] = False
        self._keep(stays)

    def forget_absent(self, graph: FriendGraph) -> None:
        """Drop all that is kept of people who are not in a graph, as `forget` does."""
        self._keep(positions(self._ids, graph.user_ids) >= 0)

    def forget_times(self, graph: FriendGraph) -> None:
        """Keep no time of an event that a graph lacks: the end of the fit, and since when STUs are known.

        Each becomes one second after the last event of the graph before it, so that the graph's events are
        before or after it as they were.
        """
        moments = torch.cat([torch.tensor([torch.iinfo(torch.int64).min]), graph.events().time + 1])

        def left(time: Tensor) -> Tensor:
            at = torch.searchsorted(moments, time, right=True) - 1
            return torch.where(at > 0, moments[at], time)

        self.until, self._since = int(left(torch.tensor(self.until))), left(self._since)
        self._report = replace(self.report, until=self.until)
        self.before = self._looked_up = None

    def _keep(self, stays: Tensor) -> None:
        table = self.table
        self.drop(stays)
        self._num_fitted = int(stays[: self._num_fitted].sum())
        self._wished, self._distance = self._wished[stays], self._distance[stays]
        self._since, self._ids = self._since[stays], UserIds(self._ids.raw[stays])
        self._table = STUs(table.codes[stays], table.codebook_size, self._distance)
        self.before = self._looked_up = None

    # The fit

    @single_precision()
    @one_intra_op_thread()
    def _fit(self, graph: FriendGraph, until: int, old: Self | None) -> Self:
        check_graph(graph)
        until = check_time("until", until)
        past = graph.snapshot(until)
        events = past.events()
        known = torch.cat([events.src, events.dst]).unique()
        if not len(known):
            raise ValueError(f"{type(self).__name__}: there is no event before until={until} to fit on")
        size = self.codebook_size or default_codebook_size(len(known), self.num_codebooks)
        if old is not None and old.table.codebook_size**self.num_codebooks >= KEPT_ROOM * len(known):
            size = old.table.codebook_size
        if self.unique and len(known) > size**self.num_codebooks:
            raise ValueError(
                f"{len(known):,} users cannot have an STU each: there are {size}^{self.num_codebooks} = "
                f"{size**self.num_codebooks:,}; ask for more codes (codebook_size, num_codebooks), or "
                "unique=False"
            )
        known = known[marks(past)[known].argsort(stable=True)]
        self.before = None
        if old is not None:  # members keep their order, and come first
            member = old._members(graph)[known]
            known = known[torch.where(member >= 0, member, len(old._ids)).argsort(stable=True)]
            self.before = old._members(graph)[known]
        seen = renumbered(past, known)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.float()  # modules of a subclass, built while torch's default was another type
            if old is None:
                self._reset()
            self.train()
            self.learn(seen, until)
            vectors = self._embedded(seen, torch.arange(len(known)), until)
        ids = UserIds(seen[USER].raw_id)
        before = None if old is None or self.before is None else old._turned(self.before, vectors, size)
        generator = torch.Generator().manual_seed(self.seed)
        self.quantizer = self.quantise(vectors, size, generator, before)
        keep = None if before is None else before.codes
        self._wished = self.quantizer.assign(vectors, balanced=self.balanced, keep=keep)
        codes = self._resolved(vectors, before) if self.unique else self._wished
        self.until, self._ids, self._num_fitted = until, ids, len(known)
        self._since = torch.full((len(known),), until)
        self._distance = self._distances(vectors, codes)
        self._table = STUs(codes, size, self._distance)
        self.prior = self.quantizer.encode(vectors.mean(0, keepdim=True))
        self._report = report_of_fit(
            type(self).__name__,
            seen,
            until=until,
            vectors=vectors,
            quantizer=self.quantizer,
            raw_codes=self._wished,
            stus=self._table,
            generator=generator,
        )
        for text in self._report.warnings:
            warnings.warn(f"{type(self).__name__}: {text}", TokenizerQualityWarning, stacklevel=3)
        return self

    def _resolved(self, vectors: Tensor, before: Before | None) -> Tensor:
        """STUs of their own for all, [M, L]; where wishes are what they were, so is what they got."""
        kept = torch.zeros(len(vectors), dtype=torch.bool)
        codes = self._wished.clone()
        if before is not None:
            kept = (codes == before.codes).all(1)
            codes[kept] = before.stus[kept]
        table = STUs(codes[kept], self.quantizer.codebook_size)
        codes[~kept] = table.place(vectors[~kept], self.quantizer, codes[~kept], balanced=self.balanced)
        return codes

    def _reset(self) -> None:
        for module in self.modules():
            reset = getattr(module, "reset_parameters", None)
            if module is not self and callable(reset):
                reset()

    def _embedded(self, graph: FriendGraph, users: Tensor, until: int) -> Tensor:
        self.eval()
        with torch.no_grad():
            vectors = self.embed(graph, users, until).detach().float().cpu()
        if vectors.dim() != 2 or len(vectors) != len(users):
            raise ValueError(
                f"{type(self).__name__}.embed gave {list(vectors.shape)} for {len(users)} users, not [n, D]"
            )
        if not bool(torch.isfinite(vectors).all()):
            raise ValueError(f"{type(self).__name__}.embed gave vectors that are not finite")
        return vectors

    def _turned(self, before: Tensor, vectors: Tensor, codebook_size: int) -> Before | None:
        """What a refit starts from: codebooks turned so that those still there are where they were.

        Args:
            before: [M] int64, which members they were, or -1.
            vectors: [M, D], where they are now.
            codebook_size: if it is another now, or D is, there is nothing to start from.
        """
        if (vectors.size(1), codebook_size) != (self.quantizer.dim, self.quantizer.codebook_size):
            return None
        there = (before >= 0)[:, None]
        codes, stus = (torch.where(there, table[before], -1) for table in (self._wished, self.table.codes))
        was = self.quantizer.decode(stus[there.squeeze(1)]).cpu().double()
        left, _, right = torch.linalg.svd(was.T @ vectors[there.squeeze(1)].double())
        turned = copy.deepcopy(self.quantizer)
        turned.codebooks = (turned.codebooks.double() @ (left @ right)).float()
        return Before(turned, codes, stus)

    def _distances(self, vectors: Tensor, codes: Tensor) -> Tensor:
        out: Tensor = torch.linalg.vector_norm(vectors - self.quantizer.decode(codes).cpu(), dim=1)
        return out

    # Newcomers

    def _welcome(self, graph: FriendGraph, users: Tensor, time: int) -> tuple[Tensor, Tensor]:
        """Those of the users [n] of whom something is known before a time, and their codes, now given."""
        past = graph.snapshot(time)
        events = past.events()
        seen = torch.zeros(graph.num_users, dtype=torch.bool)
        seen[events.src] = seen[events.dst] = True
        if "x" in past[USER]:
            seen |= past[USER].join_time >= 0 if "join_time" in past[USER] else True
        users = users[seen[users]]
        if not len(users):
            return users, self.prior[:0]
        member = self._members(graph)
        place = torch.full((len(self._ids),), -1)
        place[member[member >= 0]] = (member >= 0).nonzero().squeeze(1)
        fresh = (seen & (member < 0)).nonzero().squeeze(1)
        fresh = fresh[marks(past)[fresh].argsort(stable=True)]
        order = torch.cat([place, fresh])
        known = renumbered(past, order)
        known[USER].raw_id = joined(self._ids, past[USER].raw_id[fresh]).raw
        number = torch.full((graph.num_users,), -1)
        number[order[order >= 0]] = (order >= 0).nonzero().squeeze(1)
        users = users[number[users].argsort()]
        vectors = self._embedded(known, number[users], time)
        says = vectors.any(1)
        users, vectors = users[says], vectors[says]
        wished = self.quantizer.encode(vectors)
        codes = self.table.place(vectors, self.quantizer, wished) if self.unique else wished
        new = member[users] < 0
        distance = self._distances(vectors, codes)
        self._table = self.table.append(codes[new], distance[new])
        self._distance = torch.cat([self._distance, distance[new]])
        self._wished = torch.cat([self._wished, wished[new]])
        self._since = torch.cat([self._since, torch.full((int(new.sum()),), time)])
        self._ids = joined(self._ids, past[USER].raw_id[users[new]])
        return users, codes

    def _members(self, graph: FriendGraph) -> Tensor:
        """The number of each user of the graph among the members, [N] int64; -1 where it is none."""
        self.table  # noqa: B018
        raw = graph[USER].raw_id
        if self._looked_up is None or self._looked_up[0] is not raw or self._looked_up[1] != len(self._ids):
            self._looked_up = raw, len(self._ids), positions(graph.user_ids, self._ids)
        return self._looked_up[2]

    def _check_time(self, time: int) -> None:
        self.table  # noqa: B018
        time = check_time("time", time)
        if time < self.until:
            raise ValueError(
                f"asked for codes before {time}, but the fit saw events until {self.until}; fit until {time}"
            )

    # On disk

    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor, by name."""
        names: list[str] = []
        for kind in type(self).__mro__:
            if "__init__" in vars(kind):
                given = list(inspect.signature(vars(kind)["__init__"]).parameters.values())[1:]
                names += [one.name for one in given if one.kind is not one.VAR_KEYWORD]
                if all(one.kind is not one.VAR_KEYWORD for one in given):
                    break  # nothing is passed on to the next
        return {name: getattr(self, name) for name in names}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the tokenizer: settings as JSON, tensors as a dict of tensors."""
        table, path = self.table, check_folder(folder)
        path.mkdir(parents=True, exist_ok=True)
        tensors = {
            "ids": self._ids.raw,
            "codes": table.codes,
            "wished": self._wished,
            "distance": self._distance,
            "since": self._since,
            "prior": self.prior,
            "state": self.state_dict(),
        }
        torch.save(tensors, path / TENSORS)
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "class": type(self).__name__,
            "settings": self.settings(),
            "until": self.until,
            "num_fitted": self._num_fitted,
            "codebook_size": table.codebook_size,
            "dim": self.quantizer.dim,
        }
        (path / REPORT).write_text(self.report.to_json())
        manifest["sha256"] = {name: _digest(path / name) for name in (TENSORS, REPORT)}
        (path / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")

    @classmethod
    @single_precision()
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a tokenizer that `save` wrote. Nothing in the folder is executed (`weights_only=True`).

        Raises:
            FileNotFoundError: a file is not there.
            DataError: a file is damaged, or another tokenizer's.
        """
        path = Path(folder)
        for name in (MANIFEST, TENSORS, REPORT):
            if not (path / name).is_file():
                raise FileNotFoundError(f"no such file: {path / name}")
        try:
            manifest = json.loads((path / MANIFEST).read_text())
            if manifest["format"] != FORMAT:
                raise DataError(f"its format is not {FORMAT}")
            if manifest["class"] != cls.__name__:
                raise DataError(f"it holds a {manifest['class']}, not a {cls.__name__}")
            for name in (TENSORS, REPORT):
                if _digest(path / name) != manifest["sha256"][name]:
                    raise DataError(f"{name} is not the file that was saved with it")
            tensors = torch.load(path / TENSORS, weights_only=True)
            out = cls(**manifest["settings"])
            size, until = manifest["codebook_size"], manifest["until"]
            out.quantizer = ResidualQuantizer(
                manifest["dim"], num_codebooks=out.num_codebooks, codebook_size=size
            )
            out.load_state_dict(tensors["state"])
            out.until, out._ids, out.prior = until, UserIds(tensors["ids"]), tensors["prior"]
            out._num_fitted = manifest["num_fitted"]
            out._report = TokenizerReport.from_json((path / REPORT).read_text())
            out._wished, out._distance, out._since = (tensors[k] for k in ("wished", "distance", "since"))
            out._table = STUs(tensors["codes"], size, out._distance)
        except Exception as error:  # there is no end to the ways in which damaged files fail
            raise DataError(f"{path}: not a tokenizer that graphrec saved, or damaged ({error})") from None
        out.eval()
        return out


def load_tokenizer(folder: str | os.PathLike[str]) -> Tokenizer:
    """Read a tokenizer that `save` wrote, of whatever class; one of one's own has to be imported before.

    Raises:
        FileNotFoundError, DataError: as `Tokenizer.load`; or the class is not known.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        name = json.loads(path.read_text())["class"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a tokenizer that graphrec saved, or damaged ({error})") from None
    kinds, found = [Tokenizer], {}
    while kinds:
        kind = kinds.pop()
        found[kind.__name__] = kind
        kinds += kind.__subclasses__()
    if name not in found:
        raise DataError(f"{path}: the tokenizer {name} is not known here; import its class first")
    return found[name].load(folder)


def default_codebook_size(num_users: int, num_codebooks: int) -> int:
    """The smallest power of two from 4 on that leaves 8 places a user; at most 10,000."""
    size = SMALLEST
    while size**num_codebooks < ROOM * num_users and size < LARGEST:
        size *= 2
    return min(size, LARGEST)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
