"""STUs: every user as a short sequence of codes."""

from graphrec.tokenizer.cluster_codes import ClusterCodes as ClusterCodes
from graphrec.tokenizer.fit import CodebookFit as CodebookFit
from graphrec.tokenizer.fit import default_codebook_size as default_codebook_size
from graphrec.tokenizer.gnn import GNNRQVAE as GNNRQVAE
from graphrec.tokenizer.quality.evaluate import REFIT_EVENT_RATIO as REFIT_EVENT_RATIO
from graphrec.tokenizer.quality.evaluate import code_drift as code_drift
from graphrec.tokenizer.quality.evaluate import evaluate_tokenizer as evaluate_tokenizer
from graphrec.tokenizer.quality.report import TokenizerQualityWarning as TokenizerQualityWarning
from graphrec.tokenizer.quality.report import TokenizerReport as TokenizerReport
from graphrec.tokenizer.quality.tie_report import MIN_SCORED_TIES as MIN_SCORED_TIES
from graphrec.tokenizer.quality.tie_report import Estimate as Estimate
from graphrec.tokenizer.quality.tie_report import TieReport as TieReport
from graphrec.tokenizer.quality.tie_report import score_ties as score_ties
from graphrec.tokenizer.quality.ties import Ties as Ties
from graphrec.tokenizer.random_codes import RandomCodes as RandomCodes
from graphrec.tokenizer.residual_kmeans import ResidualKMeans as ResidualKMeans
from graphrec.tokenizer.stus import STUs as STUs
from graphrec.tokenizer.tokenizer import Tokenizer as Tokenizer
from graphrec.tokenizer.tokenizer import load_tokenizer as load_tokenizer
