"""The default tokenizer: a graph neural network and a quantizer trained on ties that came later."""

from graphrec.tokenizer.gnn.tokenizer import GNNRQVAE as GNNRQVAE
