"""Fitting of a tokenizer: from the events of a graph before a time to codebooks, and an STU for each user."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from graphrec.data import USER, FriendGraph, UserIds
from graphrec.nn import ResidualQuantizer
from graphrec.tokenizer.canonical import renumber_users, user_hashes
from graphrec.tokenizer.members import Members
from graphrec.tokenizer.quality.report import TokenizerReport, report_of_fit
from graphrec.tokenizer.quality.ties import Ties
from graphrec.tokenizer.stus import STUs

if TYPE_CHECKING:
    from graphrec.tokenizer.tokenizer import Tokenizer

STUS_PER_USER = 8
"""Possible STUs for each user known at the fit, at least, if the codebook size follows the number of
users."""

REFIT_STUS_PER_USER = 2
"""Possible STUs for each user at a refit, at least, for the codebook size to be kept."""

MIN_DEFAULT_SIZE, MAX_DEFAULT_SIZE = 4, 10_000
"""Limits of the default codebook size."""


class RefitStart(NamedTuple):
    """The state that a refit starts from.

    Attributes:
        quantizer: the previous codebooks, rotated to the new vectors.
        raw_codes: [M, L] int64, the previous codes before collisions were resolved; -1 for new users.
        stus: [M, L] int64, the previous STUs; -1 for new users.
    """

    quantizer: ResidualQuantizer
    raw_codes: Tensor
    stus: Tensor


@dataclass(frozen=True)
class CodebookFit:
    """What codebooks are made from, beside the vectors.

    Attributes:
        codebook_size: K.
        generator: source of randomness.
        start: at a refit, the state to start from; None at a fit.
    """

    codebook_size: int
    generator: torch.Generator
    start: RefitStart | None


@dataclass(frozen=True)
class FittedCodes:
    """The result of a fit.

    Attributes:
        quantizer: the codebooks.
        members: the users known at the fit, with their STUs.
        prior: [1, L] int64, the codes of the mean vector.
        report: of the fit; None if it was not asked for.
    """

    quantizer: ResidualQuantizer
    members: Members
    prior: Tensor
    report: TokenizerReport | None


def default_codebook_size(num_users: int, num_codebooks: int) -> int:
    """The smallest power of two from 4 with at least 8 possible STUs for each user; at most 10,000."""
    size = MIN_DEFAULT_SIZE
    while size**num_codebooks < STUS_PER_USER * num_users and size < MAX_DEFAULT_SIZE:
        size *= 2
    return min(size, MAX_DEFAULT_SIZE)


def fit_codes(
    tokenizer: Tokenizer, graph: FriendGraph, until: int, old: Tokenizer | None, *, reports: bool = True
) -> FittedCodes:
    """Fit a tokenizer, whose modules are trained in place.

    Args:
        tokenizer: calls its `reset`, `learn`, `embed` and `quantize`, and sets its `previous`.
        graph: with events before `until`.
        until: seconds; only strictly older events are used.
        old: at a refit, the tokenizer to start from; its members keep their order.
        reports: whether to make the report.

    Raises:
        ValueError: no event is older than `until`; or STUs are to be unique, and there are more users than
            possible STUs.
    """
    past = graph.snapshot(until)
    events = past.events()
    known = torch.cat([events.src, events.dst]).unique()
    name = type(tokenizer).__name__
    if not len(known):
        raise ValueError(f"{name}: there is no event before until={until} to fit on")
    size = _codebook_size(tokenizer, len(known), old)
    known = known[user_hashes(past)[known].argsort(stable=True)]
    tokenizer.previous = None
    if old is not None:  # members keep their order, and come first
        position = old.member_positions(graph)[known]
        known = known[torch.where(position >= 0, position, len(old.members)).argsort(stable=True)]
        tokenizer.previous = old.member_positions(graph)[known]
    seen = renumber_users(past, known)
    del past, events  # of a large network, gigabytes
    with torch.random.fork_rng():
        torch.manual_seed(tokenizer.seed)
        tokenizer.float()  # modules of a subclass, built while torch's default was another type
        if old is None:
            tokenizer.reset()
        tokenizer.train()
        tokenizer.learn(seen, until)
        vectors = embed_checked(tokenizer, seen, torch.arange(len(known)), until)
    ids, ties = UserIds(seen[USER].raw_id), Ties.of(seen) if reports else None
    del seen
    start = None
    if old is not None and tokenizer.previous is not None:
        start = _refit_start(old, tokenizer.previous, vectors, size)
    generator = torch.Generator().manual_seed(tokenizer.seed)
    quantizer = tokenizer.quantize(vectors, CodebookFit(size, generator, start))
    keep = None if start is None else start.raw_codes
    raw_codes = quantizer.assign(vectors, balanced=tokenizer.balanced, keep=keep)
    codes = raw_codes
    if tokenizer.unique:
        codes = _resolve_collisions(vectors, quantizer, raw_codes, start, balanced=tokenizer.balanced)
    distance = distances(vectors, quantizer, codes)
    stus = STUs(codes, size, distance)
    report = None
    if ties is not None:
        report = report_of_fit(
            name,
            ties,
            until=until,
            vectors=vectors,
            quantizer=quantizer,
            raw_codes=raw_codes,
            stus=stus,
            generator=generator,
        )
    members = Members(
        ids=ids,
        num_fitted=len(known),
        stus=stus,
        raw_codes=raw_codes,
        distance=distance,
        since=torch.full((len(known),), until),
    )
    return FittedCodes(quantizer, members, quantizer.encode(vectors.mean(0, keepdim=True)), report)


def embed_checked(tokenizer: Tokenizer, graph: FriendGraph, users: Tensor, until: int) -> Tensor:
    """The vectors of `Tokenizer.embed`, [n, D] float32 on the CPU, in evaluation mode.

    Raises:
        ValueError: they are not [n, D], or not finite.
    """
    tokenizer.eval()
    with torch.no_grad():
        vectors = tokenizer.embed(graph, users, until).detach().float().cpu()
    name = type(tokenizer).__name__
    if vectors.dim() != 2 or len(vectors) != len(users):
        raise ValueError(f"{name}.embed gave {list(vectors.shape)} for {len(users)} users, not [n, D]")
    if not bool(torch.isfinite(vectors).all()):
        raise ValueError(f"{name}.embed gave vectors that are not finite")
    return vectors


def distances(vectors: Tensor, quantizer: ResidualQuantizer, codes: Tensor) -> Tensor:
    """Distances [n] float32 from vectors [n, D] to the vectors that codes [n, L] stand for."""
    out: Tensor = torch.linalg.vector_norm(vectors - quantizer.decode(codes).cpu(), dim=1)
    return out


def _codebook_size(tokenizer: Tokenizer, num_users: int, old: Tokenizer | None) -> int:
    """The codebook size of a fit. Raises ValueError if unique STUs do not suffice for the users."""
    length = tokenizer.num_codebooks
    size = tokenizer.codebook_size or default_codebook_size(num_users, length)
    if old is not None and old.table.codebook_size**length >= REFIT_STUS_PER_USER * num_users:
        size = old.table.codebook_size
    if tokenizer.unique and num_users > size**length:
        raise ValueError(
            f"{num_users:,} users cannot have an STU each: there are {size}^{length} = {size**length:,}; "
            "ask for more codes (codebook_size, num_codebooks), or unique=False"
        )
    return size


def _resolve_collisions(
    vectors: Tensor,
    quantizer: ResidualQuantizer,
    raw_codes: Tensor,
    start: RefitStart | None,
    *,
    balanced: bool,
) -> Tensor:
    """A unique STU for each user, [M, L] int64; users with the same raw codes as before keep theirs."""
    kept = torch.zeros(len(vectors), dtype=torch.bool)
    codes = raw_codes.clone()
    if start is not None:
        kept = (codes == start.raw_codes).all(1)
        codes[kept] = start.stus[kept]
    table = STUs(codes[kept], quantizer.codebook_size)
    codes[~kept] = table.place(vectors[~kept], quantizer, codes[~kept], balanced=balanced)
    return codes


def _refit_start(old: Tokenizer, previous: Tensor, vectors: Tensor, codebook_size: int) -> RefitStart | None:
    """Rotate the codebooks of a fit so that they match the new vectors of its members (Procrustes).

    Args:
        old: the tokenizer to start from.
        previous: [M] int64, positions among its members; -1 for new users.
        vectors: [M, D], of the new fit.
        codebook_size: of the new fit.

    Returns:
        None if D or the codebook size has changed.
    """
    if (vectors.size(1), codebook_size) != (old.quantizer.dim, old.quantizer.codebook_size):
        return None
    member = (previous >= 0)[:, None]
    tables = old.members.raw_codes, old.table.codes
    raw_codes, stus = (torch.where(member, table[previous], -1) for table in tables)
    was = old.quantizer.decode(stus[member.squeeze(1)]).cpu().double()
    left, _, right = torch.linalg.svd(was.T @ vectors[member.squeeze(1)].double())
    rotated = copy.deepcopy(old.quantizer)
    rotated.codebooks = (rotated.codebooks.double() @ (left @ right)).float()
    return RefitStart(rotated, raw_codes, stus)
