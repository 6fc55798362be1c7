"""The base of all data sets: fetch, verify, process, load."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch_geometric.data import InMemoryDataset

from graphrec.data import USER, DataError, FriendGraph, digest_code, digest_value
from graphrec.data.graph import FORMAT
from graphrec.datasets.raw import RawFile, replacing

HOME_VARIABLE = "GRAPHREC_HOME"


class FriendDataset(InMemoryDataset):
    """A PyG data set of one `FriendGraph`, which is `dataset[0]`.

    A subclass declares its files and the counts that they must give, and implements `read`, which builds the
    graph from them.

    Args:
        root: folder for the raw and the processed file; by default the class's name inside the folder named
            by the environment variable GRAPHREC_HOME, or else inside ~/.cache/graphrec.
        transform: applied at every access.
        pre_transform: applied once, when the graph is made or loaded; it must give a valid `FriendGraph`,
            which is not saved, because functions cannot be compared by content.
        force_reload: process the raw files again.
        mirror: a folder or URL prefix where raw files are looked for before their original address; by
            default the environment variable GRAPHREC_MIRROR.
        roles: of actions, other than those of their names (see `Roles`); given to the graph at every
            construction.

    Attributes:
        name: name of the data set, also for `load_dataset`.
        source: page of its publisher.
        license_terms: terms of the data.
        citation: the reference to cite.
        files: the raw files.
        expected_users: number of ids in the files, with or without an event.
        expected_events: number of events of each action, without self-loops.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    license_terms: ClassVar[str]
    citation: ClassVar[str]
    files: ClassVar[tuple[RawFile, ...]]
    expected_users: ClassVar[int]
    expected_events: ClassVar[Mapping[str, int]]

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        transform: Callable[[Any], Any] | None = None,
        pre_transform: Callable[[Any], Any] | None = None,
        force_reload: bool = False,
        *,
        mirror: str | os.PathLike[str] | None = None,
        roles: Mapping[str, str] | None = None,
    ) -> None:
        self.mirror = mirror
        if root is None:
            root = Path(os.environ.get(HOME_VARIABLE) or "~/.cache/graphrec") / type(self).__name__
        super().__init__(os.fspath(root), transform, log=False, force_reload=force_reload)
        self.pre_transform = pre_transform
        try:
            graph = FriendGraph.load(self.processed_paths[0])
        except DataError as error:
            raise DataError(f"{error}; `force_reload=True` makes the file again") from None
        if roles:
            graph = graph.with_roles(roles)
        if pre_transform is not None:
            graph = pre_transform(graph)
            if not isinstance(graph, FriendGraph):
                raise DataError(f"{self.name}: pre_transform gave {type(graph).__name__}, not a FriendGraph")
            graph.validate()
        self._data = graph

    @property
    def raw_file_names(self) -> list[str]:
        """Names of the files in `raw_dir`."""
        return [file.name for file in self.files]

    @property
    def processed_file_names(self) -> list[str]:
        """Name of the graph's file in `processed_dir`: its digests cover all that the graph depends on."""
        return [f"graph-{self.content_key()}.pt"]

    def content_key(self) -> str:
        """Return two digests: of class, files' checksums and `settings`, and of the code that reads them."""
        kinds = [kind for kind in type(self).__mro__ if issubclass(kind, FriendDataset)]
        files = [(file.name, file.sha256) for file in self.files]
        names = [(kind.__module__, kind.__qualname__) for kind in kinds]
        counts = [getattr(self, "expected_users", None), getattr(self, "expected_events", None)]
        content = digest_value([names, files, counts, self.settings()])
        code = digest_value([FORMAT, digest_code(), *map(_source, kinds)])
        return f"{content[:16]}-{code[:16]}"

    def settings(self) -> dict[str, Any]:
        """Return the arguments on which the graph depends, as plain values."""
        return {}

    def download(self) -> None:
        """Fetch the raw files that are not there yet."""
        for file, path in zip(self.files, self.raw_paths, strict=True):
            if not os.path.exists(path):
                file.fetch(Path(self.raw_dir), self.mirror)

    def process(self) -> None:
        """Verify the raw files, build the graph, check its counts and save it."""
        for file in self.files:
            file.verify(Path(self.raw_dir))
        graph = self.read([Path(path) for path in self.raw_paths])
        events = {action: graph[USER, action, USER].num_edges for action in graph.actions}
        if graph.num_users != self.expected_users or events != self.expected_events:
            raise DataError(
                f"{self.name}: {graph.num_users} users and events {events} were read, expected "
                f"{self.expected_users} and {dict(self.expected_events)}"
            )
        graph.validate()
        with replacing(Path(self.processed_paths[0])) as partial:
            graph.save(partial)
        self.delete_outdated()

    def delete_outdated(self) -> None:
        """Delete processed files that other versions of the code made of the same files and settings."""
        content, _, code = self.content_key().partition("-")
        for path in Path(self.processed_dir).glob(f"*-{content}-*.pt"):
            if f"-{content}-{code}." not in path.name:
                path.unlink(missing_ok=True)

    def read(self, paths: list[Path]) -> FriendGraph:
        """Build the graph from the raw files, given in the order of `files`."""
        raise NotImplementedError


def _source(kind: type) -> str:
    """The source of a class, where there is a file of it."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""
