"""The contract of tokenizers: fitted on a graph up to a time, they give users STUs that never change."""

from __future__ import annotations

import copy
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypedDict

import torch
from torch import Tensor, nn

from graphrec.data import DataError, FriendGraph, as_indices
from graphrec.data.checks import check_count, check_flags, check_graph, check_seed, check_time
from graphrec.data.precision import single_precision
from graphrec.nn import ResidualQuantizer
from graphrec.threads import one_intra_op_thread
from graphrec.tokenizer import checkpoint
from graphrec.tokenizer.fit import MIN_DEFAULT_SIZE, CodebookFit, fit_codes
from graphrec.tokenizer.id_positions import id_positions
from graphrec.tokenizer.members import MemberIndex, Members, floor_to_events
from graphrec.tokenizer.newcomers import admit_newcomers
from graphrec.tokenizer.quality.report import TokenizerQualityWarning, TokenizerReport, with_raw_last_code
from graphrec.tokenizer.stus import MAX_KEYS, STUs

MAX_CODEBOOKS, MAX_CODES = 62, 2**20
"""Largest number of codes of an STU, and of codes at a level."""

TOKENIZER_CLASSES: dict[str, type[Tokenizer]] = {}
"""Every imported class of tokenizers by name, for loading."""


class CodeSettings(TypedDict, total=False):
    """The arguments that all tokenizers share; `Tokenizer` describes them."""

    num_codebooks: int
    codebook_size: int | None
    unique: bool
    balanced: bool
    seed: int


class Tokenizer(nn.Module, ABC):
    """Gives every user an STU: a short sequence of codes, coarse to fine, equal for similar users.

    A subclass computes vectors of users (`embed`) and trains, if it has parameters (`learn`). It is given a
    graph that holds only the strict past, in a canonical numbering without information. Its modules are made
    in the constructor, and its arguments are kept as attributes of the same names; modules are reset before
    each fit, and saved.

    `fit` embeds every user with an event strictly before `until`, quantizes the vectors (balanced residual
    k-means), and gives all of them an STU. A newcomer gets an STU from events and features strictly before
    the time of the first `encode` that finds any, and keeps it until a refit. STUs of other users never
    change. Users without events and features get the *prior*, the codes of the mean vector.

    Args:
        num_codebooks: L, codes of an STU.
        codebook_size: K, codes of a level; by default the smallest power of two from 4 on with K^L at least 8
            times the users known at the fit, but at most 10,000. A refit keeps it while K^L is at least twice
            the users.
        unique: every user has a different STU; otherwise equal STUs are allowed, as ordered buckets.
        balanced: at the fit, no code has more than 1.25 times the mean number of users of its level.
        seed: of all random numbers.

    Attributes:
        quantizer: the codebooks, after the fit.
        until: seconds; the fit used strictly older events.
        prior: [1, L] int64, after the fit.
        previous: at a refit, [M] int64, the previous number of each user, -1 for new users; None at a fit.
    """

    quantizer: ResidualQuantizer
    until: int
    prior: Tensor
    previous: Tensor | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        TOKENIZER_CLASSES[cls.__name__] = cls

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
        if (codebook_size or MIN_DEFAULT_SIZE) ** num_codebooks > MAX_KEYS:
            size = f"{codebook_size or MIN_DEFAULT_SIZE}^{num_codebooks}"
            raise ValueError(f"{size} STUs are more than 2^62: ask for fewer codes or codebooks")
        check_flags(unique=unique, balanced=balanced)
        check_seed(seed)
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        self.unique, self.balanced, self.seed = unique, balanced, seed
        self.previous = None
        self._members: Members | None = None
        self._report: TokenizerReport | None = None
        self._member_index = MemberIndex()

    # For subclasses

    def learn(self, graph: FriendGraph, until: int) -> None:
        """Train on a graph. Random numbers come from torch's global generator, which is seeded before.

        Args:
            graph: the users with an event strictly before `until`, and these events.
            until: seconds.
        """

    @abstractmethod
    def embed(self, graph: FriendGraph, users: Tensor, until: int) -> Tensor:
        """Compute vectors of users from events and features known strictly before a time.

        Args:
            graph: holds only events strictly before `until`. At the fit its users are 0..M-1; later, these
                keep their numbers, and users seen since then follow.
            users: [n] int64.
            until: seconds.

        Returns:
            [n, D] float32, finite; rows of 0 for users with nothing to embed.
        """

    def quantize(self, vectors: Tensor, fit: CodebookFit) -> ResidualQuantizer:
        """Make the codebooks for the vectors of a fit; by default by residual k-means.

        Args:
            vectors: [M, D], of all users known at the fit.
            fit: their size, a generator and, at a refit, the state to start from.

        Returns:
            L codebooks of K vectors.
        """
        quantizer = ResidualQuantizer(
            vectors.size(1), num_codebooks=self.num_codebooks, codebook_size=fit.codebook_size
        )
        keep = None
        if fit.start is not None:
            quantizer.codebooks.copy_(fit.start.quantizer.codebooks)
            keep = fit.start.raw_codes
        quantizer.initialize(vectors, fit.generator, balanced=self.balanced, keep=keep)
        return quantizer

    def drop(self, stays: Tensor) -> None:
        """Drop data stored for single members, such as vectors, except for members in a mask [M] bool.

        The members of the fit come first, in the order of its graph. By default nothing is stored.
        """

    def reset(self) -> None:
        """Reset the parameters of all modules before a fit."""
        for module in self.modules():
            reset = getattr(module, "reset_parameters", None)
            if module is not self and callable(reset):
                reset()

    # Fits and codes

    @property
    def members(self) -> Members:
        """The users with an STU. Raises RuntimeError before the fit."""
        self.check_fitted()
        assert self._members is not None
        return self._members

    @property
    def table(self) -> STUs:
        """The STUs of the members. Raises RuntimeError before the fit."""
        return self.members.stus

    @property
    def report(self) -> TokenizerReport:
        """The report of the fit; `evaluate_tokenizer` adds unseen ties and drift."""
        self.check_fitted()
        if self._report is None:
            raise RuntimeError(f"{type(self).__name__} was fitted with reports=False, and has no report")
        return self._report

    def check_fitted(self) -> None:
        """Raise RuntimeError before the fit."""
        if self._members is None:
            raise RuntimeError(f"{type(self).__name__} has to be fitted first: call fit(graph, until=time)")

    def fit(self, graph: FriendGraph, *, until: int, reports: bool = True) -> Self:
        """Give STUs to all users with an event strictly before `until` (seconds), from those events alone.

        With `reports=False` no report is made, as for a tokenizer that is refitted at once.

        Returns:
            this tokenizer.

        Raises:
            ValueError: there is no such event; or STUs are to be unique, and there are more users than STUs.
        """
        return self._fit(graph, until, None, reports)

    def refit(self, graph: FriendGraph, *, until: int, reports: bool = True) -> Self:
        """Fit a new tokenizer that starts from this one, so that codes keep their meaning; else as `fit`.

        Returns:
            another tokenizer; this one is unchanged.

        Raises:
            RuntimeError: this tokenizer is not fitted.
            ValueError: as `fit`.
        """
        self.check_fitted()
        return copy.deepcopy(self)._fit(graph, until, self, reports)

    @single_precision()
    @one_intra_op_thread()
    def encode(
        self, graph: FriendGraph, users: Tensor | Sequence[int | str], *, until: int | None = None
    ) -> Tensor:
        """STUs of users; newcomers with events or features get one, which they keep.

        Args:
            graph: the graph of the fit or another, also with more users: users are recognized by raw id.
            users: raw ids, or [n] int64 indices into the graph.
            until: seconds; newcomers are embedded from strictly older events and features. By default all of
                the graph.

        Returns:
            [n, L] int64. For newcomers without events and features, the prior; for users whose STU was
            assigned later than `until`, the codes they would have been assigned at `until`.

        Raises:
            KeyError, IndexError: a user is unknown; it is named.
            ValueError: the fit used events at or after `until`; or all STUs are taken.
        """
        self.check_fitted()
        index, time = as_indices(graph, users), until
        if time is None:
            moments = graph.events().time
            time = max(self.until, int(moments[-1]) + 1) if len(moments) else self.until
        time = check_time("until", time)
        self._check_time(time)
        unique, back = index.unique(return_inverse=True)
        position = self.member_positions(graph)[unique]
        lacks = (position < 0) | (self.members.since[position] > time)
        codes = self.table.codes
        admission = admit_newcomers(self, graph, unique[lacks], time)
        self._members = admission.members
        out = self.prior.repeat(len(unique), 1)
        out[~lacks] = codes[position[~lacks]]
        out[torch.searchsorted(unique, admission.users)] = admission.codes
        return out[back]

    def codes_before(self, graph: FriendGraph, time: int) -> Tensor:
        """STUs of all users as assigned before a time, for training on events from that time on.

        Args:
            graph: whose users are encoded.
            time: seconds.

        Returns:
            [N, L] int64; -1 for users without an STU at that time.

        Raises:
            ValueError: the fit used events at or after `time`.
        """
        self._check_time(time)
        position = self.member_positions(graph)
        assigned = (position >= 0) & (self.members.since[position] <= time)
        return torch.where(assigned[:, None], self.table.codes[position], -1)

    def stus(self, graph: FriendGraph) -> STUs:
        """The two-way table of STUs by the indices of a graph, buckets sorted by distance to their codes."""
        position = self.member_positions(graph)
        codes = torch.where((position >= 0)[:, None], self.table.codes[position], -1)
        rank = self.members.distance.argsort(stable=True).argsort()
        return STUs(codes, self.table.codebook_size, rank[position])

    def codes_of_fit(self, graph: FriendGraph) -> Tensor:
        """STUs of the users known at the fit, for scoring ties: [N, L] int64, -1 for other users.

        The last code is the raw one, before collisions were resolved.
        """
        members = self.members
        codes = with_raw_last_code(members.stus.codes, members.raw_codes)
        position = self.member_positions(graph)
        fitted = (position >= 0) & (position < members.num_fitted)
        return torch.where(fitted[:, None], codes[position], -1)

    def shared_codes(self, other: Tokenizer) -> tuple[Tensor, Tensor]:
        """STUs of the n users known at the fits of both this tokenizer and another: [n, L] int64 each."""
        one, two = self.members, other.members
        position = id_positions(two.ids, one.ids)[: two.num_fitted]
        both = (position >= 0) & (position < one.num_fitted)
        return one.stus.codes[position[both]], two.stus.codes[: two.num_fitted][both]

    def member_positions(self, graph: FriendGraph) -> Tensor:
        """The position of each user of a graph among the members, [N] int64; -1 for other users."""
        return self._member_index(graph, self.members)

    def _check_time(self, time: int) -> None:
        self.check_fitted()
        time = check_time("time", time)
        if time < self.until:
            raise ValueError(
                f"asked for codes before {time}, but the fit saw events until {self.until}; fit until {time}"
            )

    @single_precision()
    @one_intra_op_thread()
    def _fit(self, graph: FriendGraph, until: int, old: Self | None, reports: bool) -> Self:
        check_graph(graph)
        until = check_time("until", until)
        fitted = fit_codes(self, graph, until, old, reports=reports)
        self.quantizer, self.prior, self.until = fitted.quantizer, fitted.prior, until
        self._members, self._report = fitted.members, fitted.report
        for text in () if fitted.report is None else fitted.report.warnings:
            warnings.warn(f"{type(self).__name__}: {text}", TokenizerQualityWarning, stacklevel=3)
        return self

    def forget(self, users: Sequence[int | str]) -> None:
        """Delete everything stored about users, given by raw id; ids without an STU are ignored.

        STUs of other users, the codebooks and the report, which describe all users together, stay as they
        are. The deleted STUs are free again, and the users are newcomers if they come back.
        """
        member = self.members.ids.find(users)
        stays = torch.ones(len(self.members), dtype=torch.bool)
        stays[member[member >= 0]] = False
        self._keep(stays)

    def forget_absent(self, graph: FriendGraph) -> None:
        """Delete everything stored about users who are not in a graph, as `forget` does."""
        self._keep(id_positions(self.members.ids, graph.user_ids) >= 0)

    def forget_times(self, graph: FriendGraph) -> None:
        """Replace stored times that may come from events no longer in a graph.

        These are the end of the fit, and since when STUs are assigned. Each becomes one second after the
        last event of the graph before it, so that the graph's events stay before or after it.
        """
        members, report = self.members, self.report
        self.until = int(floor_to_events(torch.tensor(self.until), graph))
        self._members = replace(members, since=floor_to_events(members.since, graph))
        self._report = replace(report, until=self.until)
        self._clear_references()

    def _keep(self, stays: Tensor) -> None:
        members = self.members
        self.drop(stays)
        self._members = members.select(stays)
        self._clear_references()

    def _clear_references(self) -> None:
        """Drop derived data that may refer to deleted users."""
        self.previous, self._member_index = None, MemberIndex()

    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor, by name."""
        return {name: getattr(self, name) for name in checkpoint.constructor_arguments(type(self))}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the tokenizer to a folder: settings as JSON, tensors as a dict of tensors."""
        checkpoint.save_tokenizer(self, folder)

    @classmethod
    @single_precision()
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a tokenizer that `save` wrote. Nothing in the folder is executed (`weights_only=True`).

        Raises:
            FileNotFoundError: a file is missing.
            DataError: a file is damaged, of another version's format, or of another class of tokenizer.
        """
        out = checkpoint.load_tokenizer_of(cls, folder)
        assert isinstance(out, cls)
        return out

    def restore(self, members: Members, report: TokenizerReport) -> None:
        """Set the members and the report of a saved tokenizer."""
        self._members, self._report = members, report


def load_tokenizer(folder: str | os.PathLike[str]) -> Tokenizer:
    """Read a tokenizer of any class that `save` wrote; the module of a custom class has to be imported first.

    Raises:
        FileNotFoundError, DataError: as `Tokenizer.load`; or the class is unknown.
    """
    name = checkpoint.read_class_name(folder)
    if name not in TOKENIZER_CLASSES:
        path = Path(folder) / checkpoint.MANIFEST
        raise DataError(f"{path}: the tokenizer {name} is not known here; import its class first")
    return TOKENIZER_CLASSES[name].load(folder)
