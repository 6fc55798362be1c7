"""Public data sets and a synthetic one, each a PyG data set of one friend graph."""

from graphrec.datasets.base import FriendDataset as FriendDataset
from graphrec.datasets.catalog import DATASETS as DATASETS
from graphrec.datasets.catalog import load_dataset as load_dataset
from graphrec.datasets.copenhagen import CopenhagenNetworks as CopenhagenNetworks
from graphrec.datasets.raw import RawFile as RawFile
from graphrec.datasets.raw import replacing as replacing
from graphrec.datasets.snap import AskUbuntu as AskUbuntu
from graphrec.datasets.snap import CollegeMsg as CollegeMsg
from graphrec.datasets.snap import EmailEuCore as EmailEuCore
from graphrec.datasets.snap import MathOverflow as MathOverflow
from graphrec.datasets.static import DeezerHungary as DeezerHungary
from graphrec.datasets.static import LastFMAsia as LastFMAsia
from graphrec.datasets.static import TwitchGermany as TwitchGermany
from graphrec.datasets.static_split import static_split as static_split
from graphrec.datasets.synthetic import SyntheticFriends as SyntheticFriends
from graphrec.datasets.world import World as World
