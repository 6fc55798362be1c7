"""A tokenizer in a folder: settings as JSON, tensors as a dict of tensors, the report as JSON."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from graphrec.data import DataError, UserIds
from graphrec.data.checksum import file_digest
from graphrec.data.saved import (
    load_errors_as_data_error,
    make_folder,
    read_manifest,
    write_manifest,
)
from graphrec.nn import ResidualQuantizer
from graphrec.tokenizer.members import Members
from graphrec.tokenizer.quality.report import TokenizerReport
from graphrec.tokenizer.stus import STUs

if TYPE_CHECKING:
    import os

    from graphrec.tokenizer.tokenizer import Tokenizer

FORMAT = "graphrec.Tokenizer/2"
MANIFEST, TENSORS, REPORT = "tokenizer.json", "tokenizer.pt", "report.json"


def save_tokenizer(tokenizer: Tokenizer, folder: str | os.PathLike[str]) -> None:
    """Write a fitted tokenizer, see `Tokenizer.save`."""
    members, report = tokenizer.members, tokenizer.report
    path = make_folder(folder)
    tensors = {
        "ids": members.ids.raw,
        "codes": members.stus.codes,
        "raw_codes": members.raw_codes,
        "distance": members.distance,
        "since": members.since,
        "prior": tokenizer.prior,
        "state": tokenizer.state_dict(),
    }
    torch.save(tensors, path / TENSORS)
    (path / REPORT).write_text(report.to_json())
    content = {
        "class": type(tokenizer).__name__,
        "settings": tokenizer.settings(),
        "until": tokenizer.until,
        "num_fitted": members.num_fitted,
        "codebook_size": members.stus.codebook_size,
        "dim": tokenizer.quantizer.dim,
        "sha256": {name: file_digest(path / name) for name in (TENSORS, REPORT)},
    }
    write_manifest(path / MANIFEST, FORMAT, content)


def constructor_arguments(kind: type) -> list[str]:
    """The names of the constructor's arguments, including those it passes on to base classes."""
    names: list[str] = []
    for base in kind.__mro__:
        if "__init__" in vars(base):
            given = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
            names += [one.name for one in given if one.kind is not one.VAR_KEYWORD]
            if all(one.kind is not one.VAR_KEYWORD for one in given):
                break  # nothing is passed on to the next
    return names


def read_class_name(folder: str | os.PathLike[str]) -> str:
    """The name of the class of a saved tokenizer.

    Raises:
        FileNotFoundError: there is no manifest.
        DataError: it is damaged, or of another format.
    """
    return str(_read_manifest(Path(folder))["class"])


def load_tokenizer_of(kind: type[Tokenizer], folder: str | os.PathLike[str]) -> Tokenizer:
    """Read a tokenizer of a class, see `Tokenizer.load`."""
    path = Path(folder)
    manifest = _read_manifest(path)
    if manifest["class"] != kind.__name__:
        raise DataError(f"{path}: it holds a {manifest['class']}, not a {kind.__name__}")
    for name in (TENSORS, REPORT):
        if not (path / name).is_file():
            raise FileNotFoundError(f"no such file: {path / name}")
    with load_errors_as_data_error(kind, path):
        for name in (TENSORS, REPORT):
            if file_digest(path / name) != manifest["sha256"][name]:
                raise DataError(f"{name} is not the file that was saved with it")
        return _read(kind, path, manifest)


def _read_manifest(path: Path) -> dict[str, Any]:
    if not (path / MANIFEST).is_file():
        raise FileNotFoundError(f"no such file: {path / MANIFEST}")
    try:
        content = read_manifest(path / MANIFEST, FORMAT)
        if not {"class", "sha256"} <= content.keys():
            raise ValueError("its manifest is incomplete")
    except DataError as error:
        raise DataError(f"{path / MANIFEST}: {error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path / MANIFEST}: not a tokenizer that graphrec saved, or damaged ({error})"
        ) from None
    return content


def _read(kind: type[Tokenizer], path: Path, manifest: dict[str, Any]) -> Tokenizer:
    tensors = torch.load(path / TENSORS, weights_only=True)
    out = kind(**manifest["settings"])
    size = manifest["codebook_size"]
    out.quantizer = ResidualQuantizer(manifest["dim"], num_codebooks=out.num_codebooks, codebook_size=size)
    out.load_state_dict(tensors["state"])
    out.until, out.prior = manifest["until"], tensors["prior"]
    members = Members(
        ids=UserIds(tensors["ids"]),
        num_fitted=manifest["num_fitted"],
        stus=STUs(tensors["codes"], size, tensors["distance"]),
        raw_codes=tensors["raw_codes"],
        distance=tensors["distance"],
        since=tensors["since"],
    )
    out.restore(members, TokenizerReport.from_json((path / REPORT).read_text()))
    out.eval()
    return out
