"""STUs: every user as a short sequence of codes."""

from graphrec.tokenizer.certificate import Certificate as Certificate
from graphrec.tokenizer.certificate import CertificateWarning as CertificateWarning
from graphrec.tokenizer.certify import certify as certify
from graphrec.tokenizer.certify import drift as drift
from graphrec.tokenizer.cluster_codes import ClusterCodes as ClusterCodes
from graphrec.tokenizer.gnn import GNNRQVAE as GNNRQVAE
from graphrec.tokenizer.random_codes import RandomCodes as RandomCodes
from graphrec.tokenizer.residual_kmeans import ResidualKMeans as ResidualKMeans
from graphrec.tokenizer.stus import STUs as STUs
from graphrec.tokenizer.ties import Estimate as Estimate
from graphrec.tokenizer.ties import Ties as Ties
from graphrec.tokenizer.ties import Verdict as Verdict
from graphrec.tokenizer.ties import judge as judge
from graphrec.tokenizer.tokenizer import Tokenizer as Tokenizer
from graphrec.tokenizer.tokenizer import default_codebook_size as default_codebook_size
from graphrec.tokenizer.tokenizer import load_tokenizer as load_tokenizer
