"""The health certificate: whether codes can be trusted, and what they say of ties."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import torch
from tabulate import tabulate
from torch import Tensor

from graphrec.data import FriendGraph
from graphrec.nn import ResidualQuantizer
from graphrec.tokenizer.stus import STUs
from graphrec.tokenizer.ties import AGAINST, Estimate, Ties, Verdict, judge

FORMAT = "graphrec.Certificate/1"

MIN_PERPLEXITY, MAX_COLLIDING, MAX_DRIFT = 0.8, 0.5, 0.1
"""Beyond these a certificate warns: perplexity as a share of the codes of a level, or of the users where they
are fewer; share of users who were alike before collisions were resolved; share whose first code changes with
a refit."""

Judged = Literal["seen", "set aside", "later"]
EXPLANATION: dict[Judged, str] = {
    "seen": "ties that the fit has seen, which flatters it: certify(tokenizer, graph) judges others",
    "set aside": "ties that came last, judged by a fit until then",
    "later": "ties whose first contact came after the fit",
}


class CertificateWarning(UserWarning):
    """Codes are not what they should be."""


@dataclass(frozen=True)
class Certificate:
    """What is known of a fit.

    Attributes:
        tokenizer: its class.
        until: seconds; the fit saw what is strictly older.
        num_users: who has an STU from the fit.
        num_codebooks, codebook_size: L and K.
        perplexity: of the codes of each level, as a share of K; 1 where all serve equally many.
        dead: codes of each level that nobody has.
        explained: share of the variance of the vectors that prefixes of length 1..L explain, before
            collisions were resolved.
        explained_resolved: the same of whole STUs, after.
        colliding, largest_bucket: share of users whose STU is another's too, and the most who had one, before
            collisions were resolved.
        colliding_resolved, largest_bucket_resolved: the same after; nobody and 1 where STUs are unique.
        judged: which ties `ties` is about.
        ties: what the codes say of them, the last code taken as it was before collisions were resolved.
        drift: share of users whose prefix of length 1..L changes when a warm refit sees 5 % more events, the
            codebooks matched; None where nothing was refitted.
    """

    tokenizer: str
    until: int
    num_users: int
    num_codebooks: int
    codebook_size: int
    perplexity: tuple[float, ...]
    dead: tuple[int, ...]
    explained: tuple[float, ...]
    explained_resolved: float
    colliding: float
    largest_bucket: int
    colliding_resolved: float
    largest_bucket_resolved: int
    judged: Judged
    ties: Verdict
    drift: tuple[float, ...] | None = None

    @property
    def warnings(self) -> list[str]:
        """What to worry about, a sentence each."""
        out = []
        attainable = min(1.0, self.num_users / self.codebook_size)
        for level, value in enumerate(self.perplexity, 1):
            if value < MIN_PERPLEXITY * attainable:
                out.append(
                    f"the codes of level {level} serve unevenly: perplexity / K is {value:.2f}, below "
                    f"{MIN_PERPLEXITY * attainable:.2f}"
                )
        if self.colliding > MAX_COLLIDING:
            out.append(
                f"{self.colliding:.0%} of the users were alike before collisions were resolved: their last "
                "codes say little"
            )
        if self.ties.num_ties and not self.ties.finds_structure and self.ties.auc["matched"] is not None:
            out.append(
                "the codes do not tell ties from other pairs: neither homophily at length 1 nor AUC, against "
                "pairs matched by degree, lies above chance. Either the graph has no structure, or the "
                "tokenizer finds none"
            )
        if self.drift is not None and self.drift[0] > MAX_DRIFT:
            out.append(f"the first code of {self.drift[0]:.0%} of the users changes with a refit")
        return out

    def table(self) -> str:
        """For people to read."""
        levels = range(1, self.num_codebooks + 1)
        rows: list[list[str]] = [
            ["perplexity / K", *(f"{value:.3f}" for value in self.perplexity)],
            ["dead codes", *(f"{value:,}" for value in self.dead)],
            ["variance explained", *(f"{value:.3f}" for value in self.explained)],
        ]
        for kind in AGAINST:
            rows.append([f"homophily, {kind}", *map(_shown, self.ties.homophily[kind])])
        if self.drift is not None:
            rows.append(["drift", *(f"{value:.1%}" for value in self.drift)])
        auc = ", ".join(f"{kind} {_shown(self.ties.auc[kind], 3)}" for kind in AGAINST)
        lines = [
            f"{self.tokenizer}, fitted until {self.until}: {self.num_users:,} users, "
            f"{self.codebook_size}^{self.num_codebooks} STUs",
            str(tabulate(rows, headers=["level, prefix", *map(str, levels)], disable_numparse=True)),
            f"AUC: {auc}",
            f"({self.ties.num_ties:,} {EXPLANATION[self.judged]})",
            f"collisions: {self.colliding:.1%} of the users, {self.largest_bucket:,} with one STU; resolved: "
            f"{self.colliding_resolved:.1%}, {self.largest_bucket_resolved:,}, variance explained "
            f"{self.explained_resolved:.3f}",
            *(f"WARNING: {text}" for text in self.warnings),
        ]
        return "\n".join(lines)

    def to_json(self) -> str:
        """As JSON, with the warnings."""
        content = {"format": FORMAT, **asdict(self), "warnings": self.warnings}
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        content: dict[str, Any] = json.loads(text)
        if content.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        del content["warnings"]
        ties = content.pop("ties")
        homophily = {kind: [_estimate(one) for one in ties["homophily"][kind]] for kind in AGAINST}
        auc = {kind: _estimate(ties["auc"][kind]) for kind in AGAINST}
        content = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
        return cls(ties=Verdict(ties["num_ties"], homophily, auc), **content)


def certificate_of_fit(
    name: str,
    graph: FriendGraph,
    *,
    until: int,
    vectors: Tensor,
    quantizer: ResidualQuantizer,
    wished: Tensor,
    stus: STUs,
    generator: torch.Generator,
) -> Certificate:
    """Of what is known right after a fit.

    Args:
        name: of the tokenizer.
        graph: what the fit saw, its users numbered 0..M-1.
        until: seconds.
        vectors: [M, D].
        quantizer: the codebooks.
        wished: [M, L] codes before collisions were resolved.
        stus: after.
        generator: draws pairs to hold ties against.
    """
    codes, size = stus.codes, stus.codebook_size
    before, after = STUs(wished, size).buckets(stus.num_codebooks), stus.buckets(stus.num_codebooks)
    lengths = range(1, stus.num_codebooks + 1)
    ties = Ties.of(graph)
    everything = torch.ones(len(ties), dtype=torch.bool)
    return Certificate(
        tokenizer=name,
        until=until,
        num_users=len(codes),
        num_codebooks=stus.num_codebooks,
        codebook_size=size,
        perplexity=tuple(perplexity(code, size) for code in codes.unbind(1)),
        dead=tuple(size - len(code.unique()) for code in codes.unbind(1)),
        explained=tuple(_explained(vectors, quantizer.decode(wished[:, :length])) for length in lengths),
        explained_resolved=_explained(vectors, quantizer.decode(codes)),
        colliding=float(before[before > 1].sum()) / len(codes),
        largest_bucket=int(before.max()),
        colliding_resolved=float(after[after > 1].sum()) / len(codes),
        largest_bucket_resolved=int(after.max()),
        judged="seen",
        ties=judge(
            judged_codes(codes, wished), ties, past=everything, judged=everything, generator=generator
        ),
    )


def perplexity(code: Tensor, size: int) -> float:
    """Exp of the entropy of codes [n], as a share of how many there are."""
    share = torch.bincount(code, minlength=size).double() / len(code)
    return float(torch.special.entr(share).sum().exp() / size)


def judged_codes(codes: Tensor, wished: Tensor) -> Tensor:
    """STUs [M, L] as ties judge them: the last code as it was before collisions were resolved."""
    return torch.cat([codes[:, :-1], wished[:, -1:]], dim=1)


def _explained(vectors: Tensor, decoded: Tensor) -> float:
    total = float((vectors - vectors.mean(0)).double().square().sum())
    left = float((vectors - decoded.cpu()).double().square().sum())
    return 1.0 - left / total if total > 0 else 1.0


def _shown(estimate: Estimate | None, digits: int = 2) -> str:
    if estimate is None:
        return "unknown"
    value, low, high = (f"{part:,.{digits}f}" for part in estimate)
    return f"{value} [{low}, {high}]"


def _estimate(values: list[float] | None) -> Estimate | None:
    return None if values is None else Estimate(*values)
