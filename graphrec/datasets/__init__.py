"""Public data sets, each a PyG data set of one friend graph."""

from graphrec.datasets.base import FriendDataset as FriendDataset
from graphrec.datasets.catalog import DATASETS as DATASETS
from graphrec.datasets.catalog import load_dataset as load_dataset
from graphrec.datasets.copenhagen import CopenhagenNetworks as CopenhagenNetworks
from graphrec.datasets.raw import RawFile as RawFile
from graphrec.datasets.snap import CollegeMsg as CollegeMsg
from graphrec.datasets.snap import EmailEuCore as EmailEuCore
from graphrec.datasets.snap import MathOverflow as MathOverflow
