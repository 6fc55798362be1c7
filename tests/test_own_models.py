"""Heads and models of one's own: what a head may leave out, and names that every door knows."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks import ladder
from examples.activity_head import ActivityHead, ActivityNet, ActivityScores, activity
from graphrec import Bundle, FriendGraph, Query
from graphrec.models import (
    HEURISTICS,
    LEARNED,
    MODELS,
    FullSoftmax,
    GraphView,
    Hybrid,
    MixtureRecommender,
    Nearest,
    ReciprocalReranker,
    Recommender,
    build,
    load_recommender,
    mixture_config,
    model_kind,
    model_names,
    register_head,
    register_model,
)
from graphrec.models import registry as module
from graphrec.models.heads.head import HEADS
from graphrec.models.heads.optional import load_head, run_key_of, save_head
from graphrec.nn import EncoderConfig, MixtureNetwork, SampledSoftmax
from graphrec.train import ReplacedRunWarning
from tests.graphs import checked, graph_of, random_rows

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

USERS, END = 20, 1000
SMALL = {"embedding_dim": 8, "hidden_channels": 8, "window": 8, "max_epochs": 1, "progress": False}
EXAMPLE = Path(__file__).parents[1] / "examples" / "activity_head.py"

Popularity: Any = HEURISTICS["popularity"]


@pytest.fixture(autouse=True)
def _names() -> Iterator[None]:
    """Leave the registries as they were."""
    tables = (MODELS, HEADS, module._KINDS)
    before = [dict(table) for table in tables]
    yield
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)


@pytest.fixture(scope="module")
def graph() -> FriendGraph:
    return graph_of(random_rows(users=USERS, events=300, seed=1))


@pytest.fixture(scope="module")
def until(graph: FriendGraph) -> int:
    return int(graph.events().time[-1]) + 1


@dataclass(frozen=True)
class Scaled:
    """A head with settings, and nothing else to write."""

    kind: ClassVar[str] = "scaled"
    features: ClassVar[tuple[str, ...]] = ("presence", "spectral")

    scale: float = 1.0
    names: tuple[str, ...] = ("a",)

    def build(self, view: GraphView, encoder: EncoderConfig, features: Collection[str]) -> nn.Module:
        net = ActivityNet(encoder.embedding_dim)
        with torch.no_grad():
            net.user.weight.mul_(self.scale)
        return net

    def bind(self, view: GraphView, network: MixtureNetwork, *, training: bool = False) -> FullSoftmax:
        return FullSoftmax(self, ActivityScores(view, network, network.head))


@dataclass(frozen=True)
class WithRows(Scaled):
    """A head with a row for each user."""

    kind: ClassVar[str] = "with_rows"

    def build(self, view: GraphView, encoder: EncoderConfig, features: Collection[str]) -> nn.Module:
        net = super().build(view, encoder, features)
        net.bias = nn.Embedding(view.num_known + 1, 1)
        return net


# Heads


def test_the_example_imports_public_packages_only() -> None:
    lines = EXAMPLE.read_text().splitlines()
    found = {line.split()[1] for line in lines if line.startswith("from graphrec")}
    assert found <= {f"graphrec.{room}" for room in ("features", "models", "nn", "temporal")}


def test_a_head_is_saved_by_its_fields(graph: FriendGraph, until: int, tmp_path: Path) -> None:
    register_head(Scaled)
    head = Scaled(scale=0.5, names=("b", "c"))
    model = MixtureRecommender(head, mixture_config(embedding_dim=8, max_epochs=1), progress=False)
    model.fit(graph, until=until)
    model.save(tmp_path)
    again = MixtureRecommender.load(tmp_path, graph)
    assert again.head.head == head
    query = Query.of(graph, torch.arange(USERS))
    assert torch.equal(again.score(query), model.score(query))
    assert model.tokenizer is None
    content = json.loads((tmp_path / "model.json").read_text())
    assert content["head"] == {"kind": "scaled", "settings": {"scale": 0.5, "names": ["b", "c"]}}
    content["head"]["settings"]["more"] = 1
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="a Scaled has the fields"):
        MixtureRecommender.load(tmp_path, graph)


@checked
@given(scale=st.floats(allow_nan=False, allow_infinity=False), names=st.lists(st.text(max_size=3)))
def test_fields_come_back(scale: float, names: list[str]) -> None:
    head = Scaled(scale, tuple(names))
    settings = json.loads(json.dumps(save_head(head, Path())))
    assert load_head(Scaled, settings, Path()) == head


def test_what_training_depends_on_is_named_by_field() -> None:
    assert run_key_of(Scaled(scale=2.0)) == {"scale": 2.0, "names": ("a",)}
    assert run_key_of(ActivityHead()) == {}
    key = run_key_of(build("two_tower")._head)
    assert key == {"config.num_rand_negs": 512, "config.in_batch": True, "config.user_table": True}


@dataclass(frozen=True)
class Fitting(Scaled):
    def fit(self, view: GraphView) -> Fitting:
        return self

    def run_key(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Holding(Scaled):
    table: Tensor = field(default_factory=lambda: torch.zeros(2))


class Loose:
    kind, features = "loose", ("presence", "spectral")
    build, bind = Scaled.build, Scaled.bind

    def __init__(self, scale: float) -> None:
        self.scale = scale


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (Fitting(), "the head Fitting has fit but cannot be saved: give it save and load"),
        (Holding(), "the field 'table' of the head Holding is a Tensor, which JSON cannot"),
        (Scaled(scale=float("nan")), "the field 'scale' of the head Scaled is a float, which JSON cannot"),
        (Loose(2.0), "the head Loose cannot be saved: make it a frozen dataclass, or give it save"),
    ],
)
def test_a_head_that_cannot_be_saved_is_refused_before_it_is_trained(head: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        MixtureRecommender(head)


def test_rows_of_users_that_cannot_be_selected_are_refused(graph: FriendGraph, until: int) -> None:
    config = mixture_config(embedding_dim=8, max_epochs=1)
    fewer = graph_of([row for row in random_rows(users=USERS, events=300, seed=1) if 3 not in row[:2]])
    for head, refused in ((WithRows(), True), (Scaled(), False)):
        model = MixtureRecommender(head, config, progress=False).fit(graph, until=until)
        assert model.on(graph).score(Query.of(graph, torch.arange(3))).isfinite().all()
        if not refused:
            model.on(fewer)
            continue
        with pytest.raises(TypeError, match=r"ActivityNet of the head 'with_rows'.*bias.*give it with_rows"):
            model.on(fewer)


def test_the_full_softmax_is_the_softmax(graph: FriendGraph, until: int) -> None:
    """Its likelihood in training, in any order, is that of the probabilities without the asking user."""
    model = activity(**SMALL).fit(graph, until=until)
    time = graph.events().time
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    query = Query(torch.arange(8), time[-8:], torch.zeros(8, dtype=torch.int64))[order]
    target = (query.user + 5) % USERS
    encoded = model.encode_query(query)
    with torch.no_grad():
        loss = model.head.likelihood(encoded, target, torch.tensor(0))
    log_p = loss.log_p(torch.arange(8), None)
    for at in range(8):
        one = model.encode_query(query[torch.tensor([at])])
        with torch.no_grad():
            p = model.head.log_probs(one)[0].exp()
        expected = p[target[at]] / (1.0 - p[query.user[at]])
        assert log_p[at].exp() == pytest.approx(float(expected), rel=1e-4)


@checked
@given(
    logits=st.lists(st.floats(-20, 20, width=32), min_size=4, max_size=9),
    asking=st.integers(0, 3),
    step=st.integers(1, 3),
)
def test_the_exact_likelihood_leaves_out_the_asking_user_and_the_excluded(
    logits: list[float], asking: int, step: int
) -> None:
    scores, target = torch.tensor([logits]), (asking + step) % 4
    out = SampledSoftmax.of_all(scores, torch.tensor([asking]), torch.tensor([target]))
    others = [n for n in range(len(logits)) if n != asking]
    row = torch.tensor([0])
    assert out.log_p(row, None) == pytest.approx(
        float(scores[0, target] - scores[0, others].logsumexp(0)), abs=1e-4
    )
    excluded = torch.tensor([0, 0]), torch.tensor([others[0], others[1]])
    left = [n for n in others[2:] if n != target] + [target]
    assert out.log_p(row, excluded) == pytest.approx(
        float(scores[0, target] - scores[0, left].logsumexp(0)), abs=1e-4
    )


def test_a_head_of_other_code_is_trained_anew(
    graph: FriendGraph, until: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, config = tmp_path / "filed_module.py", mixture_config(embedding_dim=8, max_epochs=1)
    file.write_text(f"from {__name__} import Scaled\nclass Filed(Scaled):\n    kind = 'filed'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    head = importlib.import_module("filed_module").Filed()

    def fit() -> None:
        MixtureRecommender(head, config, folder=tmp_path / "run", progress=False).fit(graph, until=until)

    fit()
    fit()  # without a warning: it is the same
    file.write_text(file.read_text() + "# other\n")
    with pytest.warns(ReplacedRunWarning, match="another head_code"):
        fit()


@pytest.mark.parametrize(
    ("head", "error", "said"),
    [
        (Scaled(), TypeError, "takes the class of a head, got Scaled"),
        (int, TypeError, "int is not a head: it has no kind, features, build, bind"),
        (type("Bad", (Scaled,), {"kind": "no kind"}), ValueError, "'no kind' cannot name a head"),
        (type("Bad", (Scaled,), {"kind": 3}), TypeError, "the name of a head must be a string, got 3"),
        (
            type("Two", (Scaled,), {"kind": "two_tower"}),
            ValueError,
            "another head named 'two_tower'",
        ),
    ],
)
def test_what_is_no_head_is_not_registered(head: Any, error: type[Exception], said: str) -> None:
    before = dict(HEADS)
    with pytest.raises(error, match=said):
        register_head(head)
    assert before == HEADS


def test_a_head_is_defined_again() -> None:
    first = register_head(Scaled)
    again = dataclass(frozen=True)(type("Scaled", (Scaled,), {"__module__": __name__}))
    assert register_head(again) is again is HEADS["scaled"] is not first


# Names of models


class Own(Popularity):
    name = "own"


def test_a_registered_model_goes_through_every_door(
    graph: FriendGraph, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register_model("own", Own, "heuristic")
    assert model_kind("own") == "heuristic"
    assert model_kind("activity") == model_kind("nearest") == model_kind("stu_both") == "learned"
    assert {"own", "activity"} <= set(model_names())
    bundle = Bundle.fit(graph, model="own")
    bundle.save(tmp_path / "bundle")
    query = Query.of(graph, torch.arange(USERS))
    again = Bundle.load(tmp_path / "bundle").recommender
    assert isinstance(again, Own)
    assert torch.equal(again.score(query), bundle.recommender.score(query))
    rows = random_rows(users=USERS, events=300, seed=1)
    log = tmp_path / "log.csv"
    log.write_text("src,dst,timestamp\n" + "".join(f"u{row.src},u{row.dst},{row.time}\n" for row in rows))
    arguments = ["--events", str(log), "--out", str(tmp_path / "out"), "--models", "own", "popularity"]
    ladder.main(arguments)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {(row["model"], row["kind"]) for row in results["rows"]} == {
        ("own", "heuristic"),
        ("popularity", "heuristic"),
    }


def test_the_ladder_imports_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plugin(tmp_path, monkeypatch, "plugged")
    log = tmp_path / "log.csv"
    rows = random_rows(users=USERS, events=300, seed=1)
    log.write_text("src,dst,timestamp\n" + "".join(f"u{row.src},u{row.dst},{row.time}\n" for row in rows))
    arguments = ["--events", str(log), "--out", str(tmp_path / "out"), "--models", "plugged", "--plugin"]
    ladder.main([*arguments, "plugged_module"])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {(row["model"], row["kind"]) for row in results["rows"]} == {("plugged", "heuristic")}
    before = ladder.own_code(["plugged", "popularity", "stu", "oracle"])
    assert list(before) == ["plugged", "popularity", "stu"]
    assert [len(code) for code in before.values()] == [64, 0, 0]
    (tmp_path / "plugged_module.py").write_text("other")
    assert ladder.own_code(["plugged"])["plugged"] not in ("", before["plugged"])  # what --resume compares
    with pytest.raises(SystemExit):
        ladder.main([*arguments, "there_is_none"])


def write_plugin(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, registers: str = "") -> None:
    """A module `NAME_module` that registers a heuristic, on the path and not imported yet."""
    (folder / f"{name}_module.py").write_text(
        "from graphrec.models import HEURISTICS, register_model\n"
        f"class Own(HEURISTICS['popularity']):\n    name = '{name}'\n"
        f"register_model('{registers or name}', Own, 'heuristic')\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, f"{name}_module", raising=False)


def declare(folder: Path, package: str, **models: str) -> None:
    """Metadata of an installed package with entry points."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    points = "".join(f"{name} = {place}\n" for name, place in models.items())
    (info / "entry_points.txt").write_text(f"[graphrec.models]\n{points}")


def test_a_package_declares_its_model(
    graph: FriendGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plugin(tmp_path, monkeypatch, "declared")
    declare(tmp_path, "shop", declared="declared_module")
    assert "declared" in model_names()
    build("popularity")
    assert "declared_module" not in sys.modules  # only when it is asked for
    model = build("declared").fit(graph, until=END)
    model.save(tmp_path)
    assert type(load_recommender("declared", tmp_path, graph)) is type(model)
    assert model_kind("declared") == "heuristic"


def test_declarations_that_do_not_hold_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plugin(tmp_path, monkeypatch, "other", registers="else")
    declare(tmp_path, "shop", absent="absent_module", other="other_module", twice="shop_module")
    declare(tmp_path, "club", twice="club_module")
    with pytest.raises(ValueError, match="absent_module, which declares the model 'absent', cannot be"):
        build("absent")
    with pytest.raises(ValueError, match="other_module declares the model 'other', but does not call"):
        build("other")
    with pytest.raises(ValueError, match="several packages declare the model 'twice': club_module, shop"):
        build("twice")
    with pytest.raises(ValueError, match="the model registered as 'else' has the name 'other'"):
        build("else")


def seedless() -> Recommender:
    return Own()


def demanding(width: int, *, seed: int = 0) -> Recommender:
    return Own()


@pytest.mark.parametrize(
    ("name", "builder", "kind", "error", "said"),
    [
        ("own", "Own", "heuristic", TypeError, "the builder of 'own' must be a class or function, got 'Own'"),
        ("own", seedless, "learned", TypeError, r"'own' is called as builder\(seed=0\): .*'seed'"),
        ("own", demanding, "learned", TypeError, r"'own' is called as builder\(\): .*'width'"),
        ("own", demanding, "heuristic", TypeError, r"'own' is called as builder\(\): .*'width'"),
        ("own", Own, "oracle", ValueError, "unknown kind 'oracle'; there are heuristic, learned"),
        ("stu", Own, "heuristic", ValueError, "another model named 'stu'"),
        (
            "ppr",
            Own,
            "heuristic",
            ValueError,
            "another model named 'ppr': graphrec.*PPR; choose",
        ),
        ("an own", Own, "heuristic", ValueError, "'an own' cannot name a model: use letters"),
        ("../own", Own, "heuristic", ValueError, r"'\.\./own' cannot name a model: use letters"),
        (7, Own, "heuristic", TypeError, "the name of a model must be a string, got 7"),
    ],
)
def test_what_is_no_model_is_not_registered(
    name: Any, builder: Any, kind: Any, error: type[Exception], said: str
) -> None:
    before = dict(MODELS)
    with pytest.raises(error, match=said):
        register_model(name, builder, kind)
    assert before == MODELS


def test_a_builder_is_defined_again() -> None:
    register_model("own", Own, "heuristic")
    register_model("own", Own, "heuristic")
    register_model("one", one := lambda: Own(), "heuristic")
    register_model("one", one, "heuristic")
    with pytest.raises(ValueError, match="another model named 'one'"):
        register_model("one", lambda: Own(), "heuristic")


def test_builders_return_recommenders() -> None:
    register_model("own", lambda: "own", "heuristic")  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match="the builder of 'own' must return a Recommender, got a str"):
        build("own")


@pytest.mark.parametrize("name", [*LEARNED, "nearest", "stu_hybrid", "stu_both", "activity"])
def test_every_learned_model_takes_a_seed(name: str) -> None:
    def seeds(model: Recommender) -> set[int]:
        if isinstance(model, Hybrid):
            return set().union(*(seeds(part) for part in model._models))
        if isinstance(model, ReciprocalReranker):
            return seeds(model.recommender) | {model.reply_model.config.seed}
        if isinstance(model, Nearest):
            return seeds(model.two_tower)
        return {model.config.train.seed} if isinstance(model, MixtureRecommender) else set()

    assert seeds(build(name)) == {0}
    assert seeds(build(name, seed=7)) == {7}


def test_heuristics_take_no_seed() -> None:
    with pytest.raises(TypeError, match="ppr is a heuristic, which takes no seed"):
        build("ppr", seed=1)


def test_a_seed_changes_what_is_learned(graph: FriendGraph, until: int) -> None:
    def scores(**settings: Any) -> Tensor:
        model = activity(**SMALL, **settings).fit(graph, until=until)
        return model.score(Query.of(graph, torch.arange(USERS)))

    assert torch.equal(scores(), scores(seed=0))
    assert not torch.equal(scores(), scores(seed=1))


def test_mistyped_names_are_answered_with_the_like() -> None:
    calls: list[Callable[[str], object]] = [build, model_kind]
    for call in calls:
        with pytest.raises(
            KeyError, match=r"unknown model 'comon_neighbors'; did you mean 'common_neighbors'\?"
        ):
            call("comon_neighbors")
        with pytest.raises(KeyError, match=r"unknown model 'best'; the models are random, .*, stu_both"):
            call("best")
