"""A hidden layer over candidates and their cosines with a query, as a kernel."""

from __future__ import annotations

import numpy as np

from graphrec.jit import kernel


@kernel
def add_layer_scores(
    first: np.ndarray,
    start: np.ndarray,
    count: np.ndarray,
    row: np.ndarray,
    node_hidden: np.ndarray,
    node_vector: np.ndarray,
    query_hidden: np.ndarray,
    query_vector: np.ndarray,
    cosine_weight: np.ndarray,
    output_weight: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add the output of one hidden ReLU layer to the logits of R runs of candidates.

    Inputs of candidates are feature-major, so that the loops over a run become vector instructions.

    Args:
        first: [R] int64, the column of each run's first candidate.
        start: [R] int64, the place of this candidate in `out`.
        count: [R] int64, number of candidates.
        row: [R] int64, the query of each run.
        node_hidden: [H, n] float32, the hidden layer's input from the features of candidates.
        node_vector: [dim, n] float32, spectral embeddings of candidates.
        query_hidden: [B, H] float32, the hidden layer's input from queries.
        query_vector: [B, dim] float32, spectral embeddings of the queries' users.
        cosine_weight: [H] float32, of the cosine in the hidden layer.
        output_weight: [H] float32, of the output.
        out: [T] float32.
    """
    widest = 1
    for r in range(len(first)):
        widest = max(widest, count[r])
    cosine = np.empty(widest, np.float32)
    for r in range(len(first)):
        at, place, number, b = first[r], start[r], count[r], row[r]
        cosine[:number] = 0.0
        for d in range(len(node_vector)):
            own = query_vector[b, d]
            for j in range(number):
                cosine[j] += own * node_vector[d, at + j]
        for h in range(len(output_weight)):
            own, near, weight = query_hidden[b, h], cosine_weight[h], output_weight[h]
            for j in range(number):
                hidden = node_hidden[h, at + j] + own + near * cosine[j]
                out[place + j] += weight * max(hidden, np.float32(0.0))
