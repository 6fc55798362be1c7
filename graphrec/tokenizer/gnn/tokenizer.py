"""The default tokenizer: a graph neural network and a quantizer that learn from ties that came later."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphrec.data import USER, FriendGraph, Query, digest_graph
from graphrec.data.checks import check_count, check_counts, check_flags, check_folder, check_number
from graphrec.loader import QueryLoader, TimelineBatches
from graphrec.nn import ResidualQuantizer
from graphrec.temporal import Timeline
from graphrec.tokenizer.fit import CodebookFit, default_codebook_size, embed_checked
from graphrec.tokenizer.gnn.inputs import EncoderInputs, edge_kinds, encoder_inputs, simulate_newcomers
from graphrec.tokenizer.gnn.network import (
    VECTORS_PER_CODE,
    TieNetwork,
    apply_profile_components,
    fit_profile_components,
    initial_codebook,
    regress_on_profile,
)
from graphrec.tokenizer.gnn.newcomers import place_newcomers
from graphrec.tokenizer.gnn.snapshots import SnapshotPairs, Snapshots, TrainingHistory, rotate_to
from graphrec.tokenizer.residual_kmeans import MAX_DIM
from graphrec.tokenizer.tokenizer import CodeSettings, Tokenizer
from graphrec.train import train

MIN_TIES, MAX_TIES = 64, 200_000
"""Ties to train on: with fewer there is no training, of more a random sample is taken."""

HELD_OUT_SHARE, MAX_HELD_OUT_TIES = 0.1, 1024
"""Ties held out to choose the epoch."""

REFIT_SHARE = 0.2
"""Epochs and learning rate of a refit, relative to those of a fit."""

MAX_LR = 10.0

EMBED_BATCH_SIZE = 2048
"""Users embedded at once."""


class GNNRQVAE(Tokenizer):
    """Residual quantization of embeddings that a graph neural network learns from ties that came later.

    The network is inductive. It starts from spectral embeddings of the contact graph
    (`graphrec.temporal.SpectralEmbeddings`), smoothed once over contacts, and adds to each a shift computed
    from the user's activity and features and from a sample of contacts, with their action, direction and age
    (`graphrec.nn.graph_encoder`). It is trained on snapshots of the graph at several moments, and on the
    pairs who first come into contact between one snapshot and the next (`graphrec.tokenizer.gnn.snapshots`):

    - each end of a tie has to retrieve the other among the ends of the batch's ties at that snapshot, by
      inner product of embeddings (sampled softmax, both directions);
    - the first *codes* of ties have to agree, and those of other pairs to differ. With p_u the softmax, over
      the codes of a learned codebook, of minus the squared distances to the embedding of u, the loss is

          - log mean_ties p_u . p_v + log mean_others p_u . p_v

      which is the homophily that codes are evaluated by; others are, at one snapshot, random pairs, and ends
      of the batch's ties joined anew. A further term keeps the use of codes even.

    Residual k-means then quantizes the embeddings of all users; its first level starts from the learned
    codebook. The spectral embedding of a newcomer is the mean of those of the first contacts, or predicted
    from features: some of the seeds are trained without a spectral embedding and with few contacts. The pairs
    of a log without order in time are put in a random order.

    Args:
        dim: D, of the embeddings; fewer if there are fewer users. With many, coarse codes follow noise.
        num_neighbors: contacts sampled for each user, one number for each layer.
        epoch_batches: batches of an epoch, at most.
        batch_size: pairs in a batch.
        max_epochs: of training; a refit that starts warm takes a fifth of them.
        lr: learning rate.
        folder: for checkpoints, so that an interrupted fit can resume (see `graphrec.train.train`).
        progress: show training.
        **settings: as in `Tokenizer`.

    Attributes:
        curve: training and validation of the last fit, one row an epoch.
    """

    def __init__(
        self,
        *,
        dim: int = 48,
        num_neighbors: Sequence[int] = (24,),
        epoch_batches: int = 25,
        batch_size: int = 512,
        max_epochs: int = 16,
        lr: float = 6e-3,
        folder: str | os.PathLike[str] | None = None,
        progress: bool = False,
        **settings: Unpack[CodeSettings],
    ) -> None:
        super().__init__(**settings)
        check_count("dim", dim, maximum=MAX_DIM)
        check_counts(epoch_batches=epoch_batches, batch_size=batch_size, max_epochs=max_epochs)
        if isinstance(num_neighbors, (str, int)) or not num_neighbors:
            raise ValueError(
                f"num_neighbors must be at least 1 for each layer, such as (24,), got {num_neighbors!r}"
            )
        for number in num_neighbors:
            check_count("num_neighbors", number)
        check_number("lr", lr, above=0.0, maximum=MAX_LR)
        check_flags(progress=progress)
        if folder is not None:
            check_folder(folder)
        self.dim, self.num_neighbors, self.lr = dim, list(num_neighbors), lr
        self.epoch_batches, self.batch_size, self.max_epochs = epoch_batches, batch_size, max_epochs
        self.folder, self.progress = folder, progress
        self.curve: list[dict[str, float]] = []
        self.network: TieNetwork | None
        self._shape: tuple[int, int, int]
        self._actions: list[str]
        self._spectral: Tensor
        self._profile_weights: Tensor
        self._profile_components: Tensor | None
        self.reset()

    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor that determine the result, by name."""
        return {
            name: value for name, value in super().settings().items() if name not in ("folder", "progress")
        }

    def learn(self, graph: FriendGraph, until: int) -> None:
        """Compute spectral embeddings, and train the network and a codebook on ties that came later."""
        history, profile = TrainingHistory.of(graph, seed=self.seed), self._profile(graph)
        old, spectral = self._spectral, history.final_embeddings(min(self.dim, graph.num_users))
        if self.previous is not None and old.size(1) == spectral.size(1):
            known = (self.previous >= 0) & (self.previous < len(old))
            target = torch.where(known[:, None], old[self.previous * known], 0.0)
            spectral = rotate_to(spectral, target)
        self._spectral, self._profile_weights = spectral, regress_on_profile(spectral, profile)
        shape = (spectral.size(1), len(graph.actions), profile.size(1))
        if self.network is None or self._shape != shape:
            self._shape, self._actions = shape, sorted(graph.actions)
            self.network = TieNetwork(*shape, len(self.num_neighbors))
        size = self.codebook_size or default_codebook_size(graph.num_users, self.num_codebooks)
        warm = len(self.network.objective.codebook) == size
        if not warm:
            users = torch.randperm(graph.num_users)[: VECTORS_PER_CODE * size]
            order = users.argsort()
            vectors = torch.empty(len(users), spectral.size(1))
            vectors[order] = embed_checked(self, graph, users[order], until)
            codebook = initial_codebook(vectors, size, balanced=self.balanced, seed=self.seed)
            self.network.objective.codebook = nn.Parameter(codebook)
        snapshots = Snapshots.of(history, spectral)
        ties = SnapshotPairs.of(snapshots)
        ties = ties.take(torch.randperm(len(ties))[:MAX_TIES])
        self.curve = []
        if len(ties) >= MIN_TIES:
            self._train(graph, snapshots, ties, profile, until, warm=warm)

    def embed(self, graph: FriendGraph, users: Tensor, until: int) -> Tensor:
        """Embeddings of users from all events of the graph: [n, D].

        The spectral embedding of a newcomer is the mean of those of contacts, hubs weighing less. Presence
        features of newcomers are the average ones: few events reveal that a user is new, and nothing else.
        """
        assert self.network is not None
        history, profile = TrainingHistory.of(graph, seed=self.seed), self._profile(graph)
        spectral = self._spectral.new_zeros(graph.num_users, self._spectral.size(1))
        spectral[: len(self._spectral)] = self._spectral
        new = place_newcomers(spectral, history.timeline)
        loader = QueryLoader(
            history.graph,
            Query.of(history.graph, users, history.end),
            self.num_neighbors,
            strategy="uniform",
            seed=self.seed,
            batch_size=EMBED_BATCH_SIZE,
            generator=torch.Generator(),
        )
        out = [spectral[:0]]
        for batch in loader if len(users) else ():
            snapshot = torch.zeros_like(batch.input_id)
            inputs = self._inputs(batch, history.timeline, spectral[None], snapshot, profile)
            usual = self.network.encoder.node_scale.mean
            inputs = inputs._replace(node=torch.where(new[batch[USER].n_id, None], usual, inputs.node))
            out.append(self.network.encoder(*inputs.encoder_arguments, size=len(snapshot)))
        return torch.cat(out)

    def quantize(self, vectors: Tensor, fit: CodebookFit) -> ResidualQuantizer:
        """Residual k-means, whose first level starts from the learned codebook."""
        assert self.network is not None
        if fit.start is not None:
            return super().quantize(vectors, fit)
        codebook_size, generator = fit.codebook_size, fit.generator
        first = ResidualQuantizer(vectors.size(1), num_codebooks=1, codebook_size=codebook_size)
        first.codebooks[0] = self.network.objective.codebook.detach()
        new = torch.full((len(vectors), 1), -1)
        code = first.initialize(vectors, generator, balanced=self.balanced, keep=new)
        if self.num_codebooks == 1:
            return first
        dim, length = vectors.size(1), self.num_codebooks
        out = ResidualQuantizer(dim, num_codebooks=length, codebook_size=codebook_size)
        rest = ResidualQuantizer(dim, num_codebooks=length - 1, codebook_size=codebook_size)
        rest.initialize(vectors - first.decode(code), generator, balanced=self.balanced)
        for name, value in out.named_buffers():
            value.copy_(torch.cat([getattr(first, name), getattr(rest, name)]))
        return out

    def _profile(self, graph: FriendGraph) -> Tensor:
        """Features of users, [N, Fp], as principal components if there are many; [N, 0] without features."""
        x = graph[USER].get("x")
        if x is None:
            return torch.zeros(graph.num_users, 0)
        if self._profile_components is None or len(self._profile_components) != x.size(1):
            self._profile_components = fit_profile_components(x)
        return apply_profile_components(x, self._profile_components)

    # Training

    def _train(
        self,
        graph: FriendGraph,
        snapshots: Snapshots,
        ties: SnapshotPairs,
        profile: Tensor,
        until: int,
        *,
        warm: bool,
    ) -> None:
        """Train the network; `warm` at a refit that starts from a trained one."""
        assert self.network is not None
        network = self.network.train()
        num_held_out = min(MAX_HELD_OUT_TIES, int(HELD_OUT_SHARE * len(ties)))
        order = torch.arange(len(ties))
        held_out = ties.take(order[:num_held_out]).with_random_pairs(snapshots)
        trained = ties.take(order[num_held_out:]).with_random_pairs(snapshots)
        batches = TimelineBatches(
            torch.ones(len(trained), dtype=torch.int64),
            events_per_batch=self.batch_size,
            max_batches=self.epoch_batches,
            seed=self.seed,
        )
        loader = trained.loader(snapshots, self.num_neighbors, seed=self.seed, batch_sampler=batches)
        validation = held_out.loader(snapshots, self.num_neighbors, seed=self.seed, batch_size=len(held_out))

        def losses(seeds: SnapshotPairs, batch: HeteroData) -> dict[str, Tensor]:
            snapshot, is_tie = seeds.snapshot[batch.input_id], seeds.is_tie[batch.input_id]
            timeline, size = snapshots.history.timeline, 2 * len(snapshot)
            inputs = self._inputs(batch, timeline, snapshots.spectral, snapshot, profile)
            if network.training:
                inputs = simulate_newcomers(inputs, size)
            z, people = network.encoder(*inputs.encoder_arguments, size=size), batch[USER].n_id[:size]
            terms: dict[str, Tensor] = network.objective(z, people, is_tie, snapshot)
            return terms | {"events": is_tie.sum().float()}

        def validate() -> dict[str, float]:
            (batch,) = validation
            return {"val_score": -float(losses(held_out, batch)["loss"])}

        key: dict[str, Any] = {}
        if self.folder is not None:
            key |= {"tokenizer": type(self).__qualname__, **self.settings(), "until": until, "warm": warm}
            key |= {"graph": digest_graph(graph), "spectral": snapshots.spectral, "profile": profile}
        share = REFIT_SHARE if warm else 1.0
        run = f"{until}-warm" if warm else str(until)
        self.curve = train(
            network,
            loader,
            losses=lambda batch, _: losses(trained, batch),
            validate=validate,
            steps_per_epoch=len(batches),
            max_epochs=max(1, round(share * self.max_epochs)),
            patience=self.max_epochs,
            lr=share * self.lr,
            seed=self.seed,
            folder=None if self.folder is None else Path(self.folder) / run,
            key=key,
            progress=self.progress,
        )

    def _inputs(
        self, batch: HeteroData, timeline: Timeline, spectral: Tensor, snapshot: Tensor, profile: Tensor
    ) -> EncoderInputs:
        """The encoder's inputs for a batch of B seeds at snapshots [B] of spectral embeddings [V, N, D]."""
        return encoder_inputs(
            batch,
            timeline,
            spectral=spectral,
            snapshot=snapshot,
            profile=profile,
            profile_weights=self._profile_weights,
            kinds=edge_kinds(self._actions),
        )

    def drop(self, stays: Tensor) -> None:
        """Drop the spectral embeddings of members outside of a mask [M] bool."""
        self._spectral = self._spectral[stays[: len(self._spectral)]]

    # State

    def reset(self) -> None:
        """Delete the network and the embeddings of an earlier fit."""
        self.network, self._shape, self._actions = None, (0, 0, 0), []
        self._spectral = self._profile_weights = torch.empty(0, 0)
        self._profile_components = None

    def get_extra_state(self) -> Any:
        """State saved with the parameters."""
        codebook_size = 0 if self.network is None else len(self.network.objective.codebook)
        return {
            "shape": list(self._shape),
            "actions": self._actions,
            "codebook_size": codebook_size,
            "spectral": self._spectral,
            "profile_weights": self._profile_weights,
            "profile_components": self._profile_components,
        }

    def set_extra_state(self, state: Any) -> None:
        """Restore the state of `get_extra_state`."""
        self._shape, self._actions = tuple(state["shape"]), list(state["actions"])
        self._spectral, self._profile_weights = state["spectral"], state["profile_weights"]
        self._profile_components = state["profile_components"]
        self.network = TieNetwork(*self._shape, len(self.num_neighbors))
        empty = torch.zeros(state["codebook_size"], self._shape[0])
        self.network.objective.codebook = nn.Parameter(empty)
