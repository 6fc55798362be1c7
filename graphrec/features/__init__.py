"""Features of queries, pairs, paths and people, each of a strict past; nothing here is learned."""

from graphrec.features.candidates import Candidates as Candidates
from graphrec.features.gaps import ACTIVITY_WINDOWS as ACTIVITY_WINDOWS
from graphrec.features.gaps import query_pace as query_pace
from graphrec.features.initiation import NUM_INITIATION_FEATURES as NUM_INITIATION_FEATURES
from graphrec.features.initiation import initiation_features as initiation_features
from graphrec.features.pair import NUM_PAIR_FEATURES as NUM_PAIR_FEATURES
from graphrec.features.pair import pair_features as pair_features
from graphrec.features.path import NUM_PATH_FEATURES as NUM_PATH_FEATURES
from graphrec.features.path import path_features as path_features
from graphrec.features.person import NUM_PERSON_FEATURES as NUM_PERSON_FEATURES
from graphrec.features.person import person_features as person_features
from graphrec.features.prefix import NUM_PREFIX_FEATURES as NUM_PREFIX_FEATURES
from graphrec.features.prefix import prefix_features as prefix_features
from graphrec.features.presence import NUM_PRESENCE_FEATURES as NUM_PRESENCE_FEATURES
from graphrec.features.presence import presence_features as presence_features
from graphrec.features.presence import presence_features_of_pairs as presence_features_of_pairs
from graphrec.features.profiles import Profiles as Profiles
from graphrec.features.query import NUM_QUERY_FEATURES as NUM_QUERY_FEATURES
from graphrec.features.query import query_features as query_features
from graphrec.features.timelines import Timelines as Timelines
from graphrec.features.window import NUM_WINDOW_FEATURES as NUM_WINDOW_FEATURES
from graphrec.features.window import WindowCandidates as WindowCandidates
from graphrec.features.window import WindowFeatures as WindowFeatures
