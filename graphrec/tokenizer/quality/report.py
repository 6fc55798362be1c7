"""The report on a fitted tokenizer: how codes are used, and how well they separate ties from other pairs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import torch
from tabulate import tabulate
from torch import Tensor

from graphrec.nn import ResidualQuantizer
from graphrec.tokenizer.quality.tie_report import BASELINES, Estimate, TieReport, score_ties
from graphrec.tokenizer.quality.ties import Ties
from graphrec.tokenizer.stus import STUs

FORMAT = "graphrec.TokenizerReport/1"

MIN_PERPLEXITY = 0.8
"""Perplexity of a level below which a report warns, as a share of its codes, or of the users if they are
fewer."""

MAX_COLLIDING = 0.5
"""Share of users with the raw codes of another user above which a report warns."""

MAX_DRIFT = 0.1
"""Share of users whose first code changes with a refit above which a report warns."""

TieSource = Literal["fit", "held out", "later"]
TIE_SOURCES: dict[TieSource, str] = {
    "fit": "ties that the fit used, which is optimistic: evaluate_tokenizer(tokenizer, graph) scores others",
    "held out": "last ties before the end of the fit, scored by a fit without them",
    "later": "ties whose first contact came after the fit",
}


class TokenizerQualityWarning(UserWarning):
    """The codes of a fit are used unevenly, collide, drift, or do not separate ties from other pairs."""


@dataclass(frozen=True)
class TokenizerReport:
    """Quality of a fitted tokenizer.

    Attributes:
        tokenizer: name of its class.
        until: seconds; the fit used strictly older events.
        num_users: users with an STU from the fit.
        num_codebooks, codebook_size: L and K.
        perplexity: of the codes of each level, as a share of K; 1 if all codes are used equally often.
        dead_codes: number of codes of each level that no user has.
        explained_variance: share of the variance of the vectors that raw prefixes of length 1..L explain.
        resolved_explained_variance: the share that final STUs explain, after collisions were resolved.
        colliding: share of users with the raw codes of another user.
        largest_bucket: most users with the same raw codes.
        resolved_colliding: share of users with the final STU of another user; 0 if STUs are unique.
        resolved_largest_bucket: most users with the same final STU; 1 if STUs are unique.
        tie_source: which ties `ties` scores.
        ties: how well codes separate ties from other pairs, with the raw last code of each STU.
        drift: share of users whose prefix of length 1..L changes if a warm refit uses 5 % more events, codes
            matched between the fits; None if no refit was measured.
    """

    tokenizer: str
    until: int
    num_users: int
    num_codebooks: int
    codebook_size: int
    perplexity: tuple[float, ...]
    dead_codes: tuple[int, ...]
    explained_variance: tuple[float, ...]
    resolved_explained_variance: float
    colliding: float
    largest_bucket: int
    resolved_colliding: float
    resolved_largest_bucket: int
    tie_source: TieSource
    ties: TieReport
    drift: tuple[float, ...] | None = None

    @property
    def warnings(self) -> list[str]:
        """One sentence for each problem of the codes; empty for healthy codes."""
        out = []
        attainable = min(1.0, self.num_users / self.codebook_size)
        for level, value in enumerate(self.perplexity, 1):
            if value < MIN_PERPLEXITY * attainable:
                out.append(
                    f"the codes of level {level} are used unevenly: perplexity / K is {value:.2f}, below "
                    f"{MIN_PERPLEXITY * attainable:.2f}"
                )
        if self.colliding > MAX_COLLIDING:
            out.append(
                f"{self.colliding:.0%} of the users shared an STU before collisions were resolved: their "
                "last codes carry little information"
            )
        if self.ties.num_ties and not self.ties.finds_structure and self.ties.auc["matched"] is not None:
            out.append(
                "the codes do not separate ties from other pairs: neither homophily at length 1 nor "
                "AUC, against pairs matched by degree, lies above chance. Either the graph has no "
                "structure, or the tokenizer finds none"
            )
        if self.drift is not None and self.drift[0] > MAX_DRIFT:
            out.append(f"the first code of {self.drift[0]:.0%} of the users changes with a refit")
        return out

    def table(self) -> str:
        """The report as a plain-text table."""
        levels = range(1, self.num_codebooks + 1)
        rows: list[list[str]] = [
            ["perplexity / K", *(f"{value:.3f}" for value in self.perplexity)],
            ["dead codes", *(f"{value:,}" for value in self.dead_codes)],
            ["variance explained", *(f"{value:.3f}" for value in self.explained_variance)],
        ]
        for baseline in BASELINES:
            rows.append([f"homophily, {baseline}", *map(_format, self.ties.homophily[baseline])])
        if self.drift is not None:
            rows.append(["drift", *(f"{value:.1%}" for value in self.drift)])
        auc = ", ".join(f"{baseline} {_format(self.ties.auc[baseline], 3)}" for baseline in BASELINES)
        lines = [
            f"{self.tokenizer}, fitted until {self.until}: {self.num_users:,} users, "
            f"{self.codebook_size}^{self.num_codebooks} STUs",
            str(tabulate(rows, headers=["level, prefix", *map(str, levels)], disable_numparse=True)),
            f"AUC: {auc}",
            f"({self.ties.num_ties:,} {TIE_SOURCES[self.tie_source]})",
            f"collisions: {self.colliding:.1%} of the users, {self.largest_bucket:,} with one STU; resolved: "
            f"{self.resolved_colliding:.1%}, {self.resolved_largest_bucket:,}, variance explained "
            f"{self.resolved_explained_variance:.3f}",
            *(f"WARNING: {text}" for text in self.warnings),
        ]
        return "\n".join(lines)

    def to_json(self) -> str:
        """The report as JSON, with its warnings."""
        content = {"format": FORMAT, **asdict(self), "warnings": self.warnings}
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a report that `to_json` wrote. Raises ValueError for another format."""
        content: dict[str, Any] = json.loads(text)
        if content.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        del content["warnings"]
        ties = content.pop("ties")
        homophily = {name: [_read_estimate(one) for one in ties["homophily"][name]] for name in BASELINES}
        auc = {name: _read_estimate(ties["auc"][name]) for name in BASELINES}
        content = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
        return cls(ties=TieReport(ties["num_ties"], homophily, auc), **content)


def report_of_fit(
    name: str,
    ties: Ties,
    *,
    until: int,
    vectors: Tensor,
    quantizer: ResidualQuantizer,
    raw_codes: Tensor,
    stus: STUs,
    generator: torch.Generator,
) -> TokenizerReport:
    """Make the report that is available right after a fit, without drift and unseen ties.

    Args:
        name: of the tokenizer.
        ties: all that the fit saw, its users numbered 0..M-1.
        until: seconds.
        vectors: [M, D].
        quantizer: the codebooks.
        raw_codes: [M, L] int64, before collisions were resolved.
        stus: the final STUs of the M users.
        generator: samples comparison pairs.
    """
    codes, size = stus.codes, stus.codebook_size
    before, after = STUs(raw_codes, size).buckets(stus.num_codebooks), stus.buckets(stus.num_codebooks)
    lengths = range(1, stus.num_codebooks + 1)
    everything = torch.ones(len(ties), dtype=torch.bool)
    scored = with_raw_last_code(codes, raw_codes)
    explained = (_explained_variance(vectors, quantizer.decode(raw_codes[:, :length])) for length in lengths)
    return TokenizerReport(
        tokenizer=name,
        until=until,
        num_users=len(codes),
        num_codebooks=stus.num_codebooks,
        codebook_size=size,
        perplexity=tuple(perplexity(code, size) for code in codes.unbind(1)),
        dead_codes=tuple(size - len(code.unique()) for code in codes.unbind(1)),
        explained_variance=tuple(explained),
        resolved_explained_variance=_explained_variance(vectors, quantizer.decode(codes)),
        colliding=float(before[before > 1].sum()) / len(codes),
        largest_bucket=int(before.max()),
        resolved_colliding=float(after[after > 1].sum()) / len(codes),
        resolved_largest_bucket=int(after.max()),
        tie_source="fit",
        ties=score_ties(scored, ties, past=everything, scored=everything, generator=generator),
    )


def perplexity(code: Tensor, size: int) -> float:
    """Exponential of the entropy of codes [n], as a share of the number of possible codes."""
    share = torch.bincount(code, minlength=size).double() / len(code)
    return float(torch.special.entr(share).sum().exp() / size)


def with_raw_last_code(codes: Tensor, raw_codes: Tensor) -> Tensor:
    """STUs [M, L] as ties are scored by them: with the raw last code, before collisions were resolved."""
    return torch.cat([codes[:, :-1], raw_codes[:, -1:]], dim=1)


def _explained_variance(vectors: Tensor, decoded: Tensor) -> float:
    total = float((vectors - vectors.mean(0)).double().square().sum())
    left = float((vectors - decoded.cpu()).double().square().sum())
    return 1.0 - left / total if total > 0 else 1.0


def _format(estimate: Estimate | None, digits: int = 2) -> str:
    if estimate is None:
        return "unknown"
    value, low, high = (f"{part:,.{digits}f}" for part in estimate)
    return f"{value} [{low}, {high}]"


def _read_estimate(values: list[float] | None) -> Estimate | None:
    return None if values is None else Estimate(*values)
