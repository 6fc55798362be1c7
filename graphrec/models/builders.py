"""Mixture recommenders with the heads of this library, built from keyword arguments."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TypedDict, Unpack

from graphrec.models.heads.clusters.head import BoundClusterHead, ClusterConfig, ClusterHead, Start
from graphrec.models.heads.codes.head import BoundCodeHead, CodeConfig, CodeHead
from graphrec.models.heads.softmax import BoundSoftmaxHead, SoftmaxConfig, SoftmaxHead
from graphrec.models.mixture.config import Feature, MixtureConfig, Settings, mixture_config
from graphrec.models.mixture.recommender import MixtureRecommender
from graphrec.nn import COMPONENTS, Component, Decoder, check_heads
from graphrec.temporal import NeighborhoodConfig
from graphrec.tokenizer import GNNRQVAE, Tokenizer

Folder = str | os.PathLike[str] | None


class Preset(TypedDict):
    """The components and features that a model's name stands for."""

    components: tuple[Component, ...]
    features: tuple[Feature, ...]


TWO_TOWER_PRESETS: dict[str, Preset] = {
    "two_tower": {"components": (), "features": ("presence",)},
    "two_tower_pointer": {"components": ("pointer",), "features": ("presence",)},
    "two_tower_mixture": {"components": COMPONENTS, "features": ("presence", "spectral")},
}
GENERATIVE_PRESETS: dict[str, Preset] = {
    "stu": {"components": COMPONENTS, "features": ("presence", "spectral", "prefix_groups")},
    "stu_generator": {"components": (), "features": ("presence", "spectral")},
}
CLUSTERED_PRESETS: dict[str, Preset] = {
    "clustered": {"components": COMPONENTS, "features": ("presence", "spectral")},
    "clustered_pointer": {"components": ("pointer",), "features": ("presence", "spectral")},
    "clustered_only": {"components": (), "features": ("presence", "spectral")},
}


def two_tower(
    *,
    components: Collection[Component] = COMPONENTS,
    features: Collection[Feature] = ("presence", "spectral"),
    neighborhood: NeighborhoodConfig | None = None,
    num_rand_negs: int = 512,
    in_batch: bool = True,
    user_table: bool = True,
    folder: Folder = None,
    progress: bool = True,
    **settings: Unpack[Settings],
) -> MixtureRecommender[BoundSoftmaxHead]:
    """A two-tower model whose user tower reads the whole timeline, mixed with the neighborhood.

    The probabilities of all users come from a softmax over a table of user embeddings (`SoftmaxHead`).

    Args:
        components: the distributions over the neighborhood of a query: any of 'pointer', 'paths' and 'union',
            see `NeighborhoodMixture`.
        features: input features for every user: recency and counts of events ('presence'), and nearness in
            the contact graph ('spectral').
        neighborhood: limits of the neighborhood.
        num_rand_negs: random users drawn as negatives in each training step.
        in_batch: use the targets of a step as negatives for each other.
        user_table: learn an embedding of each user known in training. Without it memory does not grow with
            the users; but without features of users, too, the action or outcome that is asked for changes
            nothing, nor does the encoded history.
        folder: for checkpoints, from which an interrupted fit resumes.
        progress: show training progress.
        **settings: fields of `EncoderConfig` and `TrainConfig`.
    """
    config = mixture_config(components=components, features=features, neighborhood=neighborhood, **settings)
    head = SoftmaxHead(SoftmaxConfig(num_rand_negs=num_rand_negs, in_batch=in_batch, user_table=user_table))
    name = _name(TWO_TOWER_PRESETS, config, "two_tower_embeddings")
    return MixtureRecommender(head, config, name=name, folder=folder, progress=progress)


def generative_stu(
    *,
    tokenizer: Tokenizer | None = None,
    decoder: Decoder = "towers",
    beam_size: int = 50,
    components: Collection[Component] = COMPONENTS,
    features: Collection[Feature] = ("presence", "spectral", "prefix_groups"),
    neighborhood: NeighborhoodConfig | None = None,
    folder: Folder = None,
    progress: bool = True,
    **settings: Unpack[Settings],
) -> MixtureRecommender[BoundCodeHead]:
    """A generative model that decodes the STU of the target, mixed with the neighborhood.

    The probability of a user is the product of the probabilities of their STU's codes (`CodeHead`).
    Generation by codes follows TIGER (Rajput et al. 2023, https://arxiv.org/abs/2305.05065); with
    `components=()`, `features=()` and `ResidualKMeans` the model is TIGER's.

    Args:
        tokenizer: unfitted, gives the STUs; by default `GNNRQVAE()`. A copy of it is fitted.
        decoder: 'towers', one MLP a level; 'moe', one mixture of experts a level; or 'transformer', causal.
        beam_size: prefixes kept at each level of the beam search.
        components: as in `two_tower`.
        features: input features for the users who share a code prefix: recency and counts of events
            ('presence'), nearness in the contact graph ('spectral'), and votes of the neighbors
            ('prefix_groups').
        neighborhood: limits of the neighborhood.
        folder: for checkpoints, from which an interrupted fit resumes.
        progress: show training progress.
        **settings: fields of `EncoderConfig` and `TrainConfig`.
    """
    config = mixture_config(components=components, features=features, neighborhood=neighborhood, **settings)
    if tokenizer is None:
        tokenizer = GNNRQVAE(seed=config.train.seed)
    if not isinstance(tokenizer, Tokenizer):
        raise TypeError(f"tokenizer must be a Tokenizer, got a {type(tokenizer).__name__}")
    head = CodeHead(CodeConfig(decoder=decoder, beam_size=beam_size), tokenizer)
    if decoder == "transformer":
        check_heads("embedding_dim", config.encoder.embedding_dim, config.encoder.num_heads)
    name = _name(GENERATIVE_PRESETS, config, "stu_codes")
    return MixtureRecommender(head, config, name=name, folder=folder, progress=progress)


def clustered(
    *,
    num_clusters: int | None = None,
    probe_fraction: float = 0.1,
    start: Start = "codes",
    first_codes: Tokenizer | None = None,
    num_rand_negs: int = 512,
    components: Collection[Component] = COMPONENTS,
    features: Collection[Feature] = ("presence", "spectral"),
    neighborhood: NeighborhoodConfig | None = None,
    folder: Folder = None,
    progress: bool = True,
    **settings: Unpack[Settings],
) -> MixtureRecommender[BoundClusterHead]:
    """A model that chooses the target's cluster, then the target, mixed with the neighborhood.

    The probabilities of all users come from learned clusters (`ClusterHead`); `recommend` searches only the
    most probable ones.

    Args:
        num_clusters: by default a quarter of the number of users known in training, at most 1,024.
        probe_fraction: `recommend` searches clusters until they hold about this fraction of all users; 1 is
            exact.
        start: how clusters start: 'codes', from the first codes of a tokenizer, or 'scratch', at random.
        first_codes: the tokenizer of start 'codes', see `ClusterHead`. A copy of it is fitted.
        num_rand_negs: random users drawn as negatives in each training step.
        components: as in `two_tower`.
        features: as in `two_tower`.
        neighborhood: limits of the neighborhood.
        folder: for checkpoints, from which an interrupted fit resumes.
        progress: show training progress.
        **settings: fields of `EncoderConfig` and `TrainConfig`.
    """
    if first_codes is not None and not isinstance(first_codes, Tokenizer):
        raise TypeError(f"first_codes must be a Tokenizer, got a {type(first_codes).__name__}")
    head_config = ClusterConfig(
        num_clusters=num_clusters,
        probe_fraction=probe_fraction,
        start=start,
        num_rand_negs=num_rand_negs,
    )
    config = mixture_config(components=components, features=features, neighborhood=neighborhood, **settings)
    name = _name(CLUSTERED_PRESETS, config, "clustered_embeddings")
    head = ClusterHead(head_config, first_codes)
    return MixtureRecommender(head, config, name=name, folder=folder, progress=progress)


def _name(presets: Mapping[str, Preset], config: MixtureConfig, bare: str) -> str | None:
    """The preset that a configuration equals, `bare` without components and features, else None.

    It ends in '_windows' if the targets are those of windows.
    """
    chosen = {"components": config.components, "features": config.features}
    name = next((name for name, preset in presets.items() if preset == chosen), None)
    if not config.components and not config.features:
        name = bare
    return f"{name}_windows" if name is not None and config.train.targets == "windows" else name


TwoTower, GenerativeSTU, Clustered = two_tower, generative_stu, clustered
