"""The contract of every tokenizer: the strict past, names, newcomers, uniqueness, refits, files."""

from __future__ import annotations

import copy
import inspect
import json
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from graphs import (
    Row,
    checked,
    graph_of,
    logs,
    permuted,
    planted_rows,
    random_rows,
    rewritten,
    shuffled_in_ties,
)
from hypothesis import given, settings
from tokenizers import BY_CHANCE, TOKENIZERS, SageTokenizer
from torch import Tensor

from graphrec.data import DataError, EventLog, FriendGraph, UserTable
from graphrec.tokenizer import RandomCodes, ResidualKMeans, Tokenizer, code_drift

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

DAY = 86_400
USERS = 20
"""Two more than have events."""

UNTIL, LATER = 18 * DAY, 24 * DAY
ROWS = [
    *random_rows(3, users=14, events=110, times=30, scale=DAY),
    Row(14, 2, 19 * DAY, "text"),
    Row(5, 15, 21 * DAY, "poke"),
    Row(16, 14, 22 * DAY, "call"),
    Row(17, 3, 25 * DAY, "text"),
]
ROWS.sort(key=lambda row: row.time)
"""Users 14 to 17 come after the fit, the last of them after `LATER`."""

NEW_ID = np.random.default_rng(5).permutation(USERS)
EVERYONE = torch.arange(USERS)


def fitted(name: str, rows: list[Row] = ROWS, **settings: int | bool) -> Tokenizer:
    return TOKENIZERS[name](**settings).fit(graph_of(rows, USERS), until=UNTIL)


@cache
def shared(name: str) -> Tokenizer:
    """Fitted on the rows as they are; nobody has come yet, and it is not to be changed."""
    return fitted(name)


def fresh(name: str) -> Tokenizer:
    """One like it, to be changed."""
    return copy.deepcopy(shared(name))


@pytest.fixture(params=TOKENIZERS, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def seen_before(time: int, rows: list[Row] = ROWS) -> Tensor:
    out = torch.zeros(USERS, dtype=torch.bool)
    out[[end for row in rows if row.time < time for end in (row.src, row.dst)]] = True
    return out


def codes(tokenizer: Tokenizer, rows: list[Row] = ROWS) -> Tensor:
    """Of the fit, -1 for whoever has none."""
    return tokenizer.stus(graph_of(rows, USERS)).codes


# The fit


def test_everybody_with_an_event_has_an_stu(name: str) -> None:
    stus = shared(name).stus(graph_of(ROWS, USERS))
    assert stus.codes.shape == (USERS, 3)
    assert torch.equal(stus.has(), seen_before(UNTIL))
    assert 10 < len(stus) < USERS - 2
    given = stus.codes[stus.has()]
    assert ((given >= 0) & (given < stus.codebook_size)).all()
    assert len(given[:, 0].unique()) > 2


def test_every_stu_leads_back_to_its_user(name: str) -> None:
    stus = shared(name).stus(graph_of(ROWS, USERS))
    users = stus.has().nonzero().squeeze(1)
    row, found = stus.users_of(stus.codes[users])
    assert torch.equal(row, torch.arange(len(users)))
    assert torch.equal(found, users)


@pytest.mark.parametrize(("num_users", "size"), [(1, 4), (8, 4), (9, 8), (64, 8), (65, 16), (1_000_000, 256)])
def test_the_codebook_size_follows_the_users(num_users: int, size: int) -> None:
    from graphrec.tokenizer import default_codebook_size

    assert default_codebook_size(num_users, 3) == size
    assert size == 4 or (size // 2) ** 3 < 8 * num_users <= size**3


def test_the_codebook_size_has_an_end() -> None:
    from graphrec.tokenizer import default_codebook_size

    assert default_codebook_size(10**6, 1) == 10_000


def test_one_seed_one_result(name: str) -> None:
    assert torch.equal(codes(fitted(name)), codes(shared(name)))
    again = shared(name).settings()
    assert not torch.equal(
        codes(type(shared(name))(**again | {"seed": 1}).fit(graph_of(ROWS, USERS), until=UNTIL)),
        codes(shared(name)),
    )


def test_the_global_generator_is_left_alone(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    before = torch.random.get_rng_state()
    tokenizer.fit(graph_of(ROWS, USERS), until=UNTIL).encode(graph_of(ROWS, USERS), EVERYONE)
    assert torch.equal(torch.random.get_rng_state(), before)


# The strict past


@pytest.mark.parametrize("seed", range(3))
def test_the_future_changes_no_code(name: str, seed: int) -> None:
    """Every event from `until` on is another one, those at that very time included."""
    other = rewritten(ROWS, UNTIL, num_users=USERS, seed=seed)
    assert any(row.time == UNTIL for row in other)
    assert torch.equal(codes(fitted(name, other), other), codes(shared(name)))


def test_the_past_changes_codes(name: str) -> None:
    """So that the test above can fail."""
    other = rewritten(ROWS, UNTIL - 5 * DAY, num_users=14, seed=0)
    found, here = codes(fitted(name, other), other), codes(shared(name))
    both = (found >= 0).all(1) & (here >= 0).all(1)
    assert both.sum() > 10
    assert torch.equal(found[both], here[both]) == (name in BY_CHANCE)


@pytest.mark.parametrize("seed", range(3))
def test_newcomers_are_known_by_their_past(name: str, seed: int) -> None:
    other = rewritten(ROWS, LATER, num_users=USERS, seed=seed)
    one = fresh(name).encode(graph_of(ROWS, USERS), EVERYONE, until=LATER)
    assert torch.equal(fitted(name, other).encode(graph_of(other, USERS), EVERYONE, until=LATER), one)


def test_newcomers_are_known_by_what_they_did(name: str) -> None:
    """So that the test above can fail: with other contacts, another STU."""
    if name in BY_CHANCE:
        return
    before = codes(shared(name))
    found = []
    for contact in range(14):
        rows = [*(row for row in ROWS if row.time < UNTIL), Row(14, contact, UNTIL, "text")]
        given = fresh(name).encode(graph_of(rows, USERS), torch.tensor([14]), until=LATER)[0]
        assert not (before == given).all(1).any()
        found.append(tuple(given.tolist()))
    assert len(set(found)) > 2


# Names and ties


def test_new_names_permute_the_codes(name: str) -> None:
    if name in BY_CHANCE:
        return
    renamed, other = torch.from_numpy(NEW_ID), permuted(ROWS, NEW_ID.tolist())
    one, two = fresh(name), fitted(name, other)
    assert torch.equal(codes(two, other)[renamed], codes(one))
    assert (codes(one)[EVERYONE] != codes(one)[renamed]).any()
    later = one.encode(graph_of(ROWS, USERS), EVERYONE, until=LATER)
    assert torch.equal(two.encode(graph_of(other, USERS), EVERYONE, until=LATER)[renamed], later)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_tied_rows_changes_no_code(name: str, seed: int) -> None:
    shuffled = shuffled_in_ties(ROWS, seed)
    assert shuffled != ROWS
    assert torch.equal(codes(fitted(name, shuffled), shuffled), codes(shared(name)))


# Newcomers


def test_newcomers_get_an_stu_and_keep_it(name: str) -> None:
    tokenizer, graph = fresh(name), graph_of(ROWS, USERS)
    before = codes(tokenizer)
    old = seen_before(UNTIL)
    first = tokenizer.encode(graph, EVERYONE, until=LATER)
    assert torch.equal(first[old], before[old])
    stus = tokenizer.stus(graph)
    assert torch.equal(stus.has(), seen_before(LATER))
    assert len(stus) == old.sum() + 3 == len(stus.codes[stus.has()].unique(dim=0))
    last = tokenizer.encode(graph, EVERYONE)
    came = seen_before(LATER)
    assert torch.equal(last[came], first[came])
    assert torch.equal(tokenizer.stus(graph).has(), seen_before(LATER + 10 * DAY))


def test_newcomers_come_by_time(name: str) -> None:
    """Somebody who has an STU from a later time is, at an earlier one, what was known then."""
    tokenizer, graph = fresh(name), graph_of(ROWS, USERS)
    tokenizer.encode(graph, EVERYONE)
    assert torch.equal(tokenizer.stus(graph).has(), seen_before(10**9))
    asked = tokenizer.encode(graph, EVERYONE, until=LATER)
    first = fresh(name).encode(graph, EVERYONE, until=LATER)
    never = ~seen_before(LATER)
    assert never[17]
    assert torch.equal(asked[never], tokenizer.prior.repeat(int(never.sum()), 1))
    old = seen_before(UNTIL)
    assert torch.equal(asked[old], first[old])
    assert torch.equal(tokenizer.codes_before(graph, LATER)[~old], torch.full((int((~old).sum()), 3), -1))


def test_the_unknown_have_the_prior(name: str) -> None:
    tokenizer, graph = fresh(name), graph_of(ROWS, USERS)
    unknown = torch.tensor([18, 19, 14])
    found = tokenizer.encode(graph, unknown, until=UNTIL)
    assert torch.equal(found, tokenizer.prior.repeat(3, 1))
    assert len(tokenizer.table) == seen_before(UNTIL).sum()
    assert not torch.equal(tokenizer.encode(graph, unknown)[2:], found[2:])
    assert torch.equal(tokenizer.encode(graph, unknown)[:2], found[:2])


def test_codes_before_a_time(name: str) -> None:
    tokenizer, graph = fresh(name), graph_of(ROWS, USERS)
    tokenizer.encode(graph, EVERYONE, until=LATER)
    for time in (UNTIL, LATER - 1):
        assert torch.equal(tokenizer.codes_before(graph, time), codes(shared(name)))
    assert torch.equal(tokenizer.codes_before(graph, LATER), tokenizer.stus(graph).codes)
    for call in (tokenizer.codes_before, lambda g, time: tokenizer.encode(g, EVERYONE, until=time)):
        with pytest.raises(ValueError, match=f"fit saw events until {UNTIL}"):
            call(graph, UNTIL - 1)


def test_rows_as_asked(name: str) -> None:
    tokenizer, graph = fresh(name), graph_of(ROWS, USERS)
    asked = torch.tensor([3, 14, 3, 19, 0])
    found = tokenizer.encode(graph, asked, until=LATER)
    everyone = tokenizer.encode(graph, EVERYONE, until=LATER)
    assert torch.equal(found, everyone[asked])
    assert torch.equal(tokenizer.encode(graph, [3, 14, 3, 19, 0], until=LATER), found)
    assert tokenizer.encode(graph, asked[:0]).shape == (0, 3)


def test_a_graph_that_has_grown(name: str) -> None:
    """People are known by their ids: new ones shift every index, and one of them turns all ids to text."""
    tokenizer, graph = fresh(name), graph_of(ROWS, USERS)
    before = tokenizer.encode(graph, EVERYONE, until=UNTIL)
    for new in (-7, "anna"):
        rows = [*ROWS, Row(new, 3, 40 * DAY)]
        log = EventLog.from_arrays(
            *zip(*([str(x) for x in row[:2]] + list(row[2:3]) for row in rows), strict=True)
        )
        grown = FriendGraph.from_events(log)
        assert grown.user_ids.lookup([3]) != [3]
        old = [user for user in range(USERS) if seen_before(UNTIL)[user]]
        assert torch.equal(tokenizer.encode(grown, old), before[old])
        came = tokenizer.encode(grown, [new])
        assert torch.equal(tokenizer.encode(grown, [new]), came)
        assert int((tokenizer.table.codes == came).all(1).sum()) == 1


def test_a_graph_without_the_old(name: str) -> None:
    """Yesterday's log alone: whoever is not in it keeps their STU."""
    tokenizer = fresh(name)
    before = codes(tokenizer)
    recent = graph_of([Row(30, 3, 40 * DAY), Row(31, 30, 41 * DAY)])
    tokenizer.encode(recent, [30, 31, 3])
    assert torch.equal(codes(tokenizer), before)
    assert len(tokenizer.table) == seen_before(UNTIL).sum() + 2


# Unique, or not


def test_no_more_users_than_stus(name: str) -> None:
    people = int(seen_before(UNTIL).sum())
    with pytest.raises(ValueError, match=rf"{people} users cannot have an STU each: there are 2\^3 = 8"):
        fitted(name, codebook_size=2)
    loose = fitted(name, codebook_size=2, unique=False)
    assert len(loose.stus(graph_of(ROWS, USERS))) == people
    assert loose.report.resolved_colliding > 0


def test_as_many_users_as_stus(name: str) -> None:
    rows = random_rows(1, users=8, events=80)
    tokenizer = TOKENIZERS[name](codebook_size=2).fit(graph_of(rows, 9), until=100)
    assert len(tokenizer.table.codes.unique(dim=0)) == len(tokenizer.table) == 8
    full = graph_of([*rows, Row(8, 0, 200)])
    with pytest.raises(ValueError, match=r"need an STU each, 0 of 2\^3 are free"):
        tokenizer.encode(full, torch.tensor([8]))


@pytest.mark.parametrize("num_codebooks", [1, 2, 4])
def test_any_number_of_codes(name: str, num_codebooks: int) -> None:
    tokenizer = fitted(name, num_codebooks=num_codebooks)
    found = tokenizer.encode(graph_of(ROWS, USERS), EVERYONE)
    assert found.shape == (USERS, num_codebooks)
    assert len(tokenizer.table.codes.unique(dim=0)) == len(tokenizer.table)


def test_one_event(name: str) -> None:
    tokenizer = TOKENIZERS[name]().fit(graph_of([Row(0, 1, 5)]), until=6)
    assert len(tokenizer.table) == 2
    assert len(tokenizer.table.codes.unique(dim=0)) == 2


@settings(checked, max_examples=12)
@given(logs())
def test_any_log(rows: list[Row]) -> None:
    """Everybody has an STU of their own, now or when they come, and nobody's changes."""
    graph, first = graph_of(rows, 5), min(row.time for row in rows)
    for build in TOKENIZERS.values():
        tokenizer, known = build().fit(graph, until=first + 1), {}
        for time in range(first + 1, 8):
            found = tokenizer.encode(graph, torch.arange(5), until=time)
            stus = tokenizer.stus(graph)
            met = {end for row in rows if row.time < time for end in (row.src, row.dst)}
            assert set(stus.has().nonzero().squeeze(1).tolist()) <= met
            assert len(stus.codes[stus.has()].unique(dim=0)) == len(stus)
            for user, code in known.items():
                assert torch.equal(found[user], code)
            known = {user: found[user] for user in stus.has().nonzero().squeeze(1).tolist()}


# Refits


def test_a_refit_on_the_same_changes_little(name: str) -> None:
    tokenizer = fresh(name)
    again = tokenizer.refit(graph_of(ROWS, USERS), until=UNTIL)
    first, _, last = code_drift(tokenizer, again)
    assert first == 0
    assert last < 0.2
    assert torch.equal(codes(again)[:, 0], codes(tokenizer)[:, 0])


def test_a_refit_knows_those_who_came(name: str) -> None:
    tokenizer, graph = fresh(name), graph_of(ROWS, USERS)
    before = codes(tokenizer)
    again = tokenizer.refit(graph, until=LATER)
    assert torch.equal(again.stus(graph).has(), seen_before(LATER))
    assert again.until == LATER
    assert torch.equal(codes(tokenizer), before)
    assert tokenizer.until == UNTIL
    assert len(again.table.codes.unique(dim=0)) == len(again.table)


def test_a_refit_drifts_less() -> None:
    rows = planted_rows(0, groups=8, size=16, events=3_000)
    graph, moments = graph_of(rows, 128), [row.time for row in rows]
    old = ResidualKMeans(dim=8, balanced=True).fit(graph, until=moments[2_800])
    warm = old.refit(graph, until=moments[-1])
    cold = ResidualKMeans(dim=8, balanced=True).fit(graph, until=moments[-1])
    assert code_drift(old, warm)[0] < 0.1
    assert code_drift(old, warm)[1] < code_drift(old, cold)[1] - 0.1
    assert warm.report.explained_variance[-1] > cold.report.explained_variance[-1] - 0.05


# What each is for


def test_circles_share_their_first_code() -> None:
    rows = planted_rows(0, groups=8, size=16, events=3_000)
    tokenizer = ResidualKMeans(dim=8, codebook_size=8, balanced=True).fit(graph_of(rows, 128), until=10**9)
    first = tokenizer.stus(graph_of(rows, 128)).codes[:, 0].view(8, 16)
    assert (first == first.mode(dim=1, keepdim=True).values).float().mean() > 0.95
    assert len(first.mode(dim=1).values.unique()) == 8


def test_a_newcomer_joins_the_circle() -> None:
    rows = planted_rows(0, groups=8, size=16, events=3_000)
    end = rows[-1].time + 1
    graph = graph_of([*rows, *(Row(128, 32 + k, end + k) for k in range(3))])
    tokenizer = ResidualKMeans(dim=8, codebook_size=8, balanced=True).fit(graph, until=end)
    circle = tokenizer.stus(graph).codes[32:48, 0].mode().values
    assert tokenizer.encode(graph, [128])[0, 0] == circle


def test_random_codes_know_nothing_but_the_name() -> None:
    one, other = random_rows(1, users=60, events=300), random_rows(2, users=60, events=300)
    first, second = (RandomCodes(unique=False).fit(graph_of(rows, 60), until=99) for rows in (one, other))
    assert torch.equal(codes_of(first, one), codes_of(second, other))
    named = [Row(f"u{row.src}", f"u{row.dst}", row.time) for row in one]
    longer = [*named, Row("u" * 50, "u0", 100)]
    text = [
        RandomCodes(unique=False, codebook_size=16).fit(text_graph(rows), until=99)
        for rows in (named, longer)
    ]
    assert torch.equal(text[0].encode(text_graph(named), ["u7"]), text[1].encode(text_graph(longer), ["u7"]))


def codes_of(tokenizer: Tokenizer, rows: list[Row]) -> Tensor:
    return tokenizer.stus(graph_of(rows, 60)).codes


def text_graph(rows: list[Row]) -> FriendGraph:
    return FriendGraph.from_events(EventLog.from_arrays(*zip(*(row[:3] for row in rows), strict=True)))


class ByAge(Tokenizer):
    """Somebody who comes is known by a feature alone."""

    def embed(self, graph: FriendGraph, users: Tensor, until: int) -> Tensor:
        return graph["user"].x[users]


@pytest.mark.parametrize("joined", [False, True])
def test_features_speak_for_whoever_has_done_nothing(joined: bool) -> None:
    columns = {"user": list(range(30)), "age": [20.0 + u % 15 for u in range(30)]}
    if joined:
        columns["join_time"] = [0] * 28 + [50, 70]
    rows = random_rows(0, users=15, events=60, times=20)
    table = UserTable.from_table(pa.table(columns), where="the users")
    graph = FriendGraph.from_events(EventLog.from_arrays(*zip(*rows, strict=True)), table)
    tokenizer = ByAge(codebook_size=16).fit(graph, until=30)
    assert tokenizer.stus(graph).has().nonzero().squeeze(1).tolist() == list(range(15))
    found = tokenizer.encode(graph, torch.arange(30), until=60)
    assert torch.equal(found[15:28, 0], found[:13, 0])
    has = tokenizer.stus(graph).has()
    assert has[:29].all()
    assert bool(has[29]) != joined  # who joins at 70 is not yet known by then


def test_a_custom_tokenizer_takes_twenty_lines() -> None:
    lines = inspect.getsource(SageTokenizer).splitlines()
    body = [line for line in lines[3:] if line.strip()]
    assert len(body) <= 20


# What is refused


def test_an_unfitted_one_says_so(name: str, tmp_path: Path) -> None:
    unfitted, graph = TOKENIZERS[name](), graph_of(ROWS, USERS)
    for call in (
        lambda: unfitted.encode(graph, [1]),
        lambda: unfitted.codes_before(graph, UNTIL),
        lambda: unfitted.stus(graph),
        lambda: unfitted.refit(graph, until=UNTIL),
        lambda: unfitted.save(tmp_path / "there"),
        lambda: unfitted.report,
    ):
        with pytest.raises(RuntimeError, match=f"{type(unfitted).__name__} has to be fitted first"):
            call()
    assert not (tmp_path / "there").exists()


def test_nothing_to_fit_on(name: str) -> None:
    with pytest.raises(ValueError, match="there is no event before until"):
        TOKENIZERS[name]().fit(graph_of(ROWS), until=min(row.time for row in ROWS))


def test_unknown_users_are_named(name: str) -> None:
    graph = graph_of(ROWS, USERS)
    with pytest.raises(KeyError, match="99"):
        shared(name).encode(graph, [3, 99])
    with pytest.raises(IndexError, match="20"):
        shared(name).encode(graph, torch.tensor([3, 20]))


@pytest.mark.parametrize("settings", [{"num_codebooks": 0}, {"codebook_size": 0}])
def test_no_tokenizer_without_codes(name: str, settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        TOKENIZERS[name](**settings)


class Broken(Tokenizer):
    """Says what it is told to."""

    said = torch.zeros(1, 1)

    def embed(self, graph: FriendGraph, users: Tensor, until: int) -> Tensor:
        return self.said


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (torch.zeros(3, 2), r"gave \[3, 2\] for 18 users"),
        (torch.zeros(18), r"gave \[18\] for 18 users"),
        (torch.full((18, 2), torch.nan), "not finite"),
    ],
)
def test_what_embed_may_not_say(said: Tensor, why: str) -> None:
    broken = Broken()
    broken.said = said
    with pytest.raises(ValueError, match=why):
        broken.fit(graph_of(ROWS), until=10**9)


# Files


def test_what_was_saved_comes_back(name: str, tmp_path: Path) -> None:
    graph, tokenizer = graph_of(ROWS, USERS), fresh(name)
    tokenizer.encode(graph, EVERYONE, until=20 * DAY)
    tokenizer.save(tmp_path / "a" / "b")
    back = type(tokenizer).load(tmp_path / "a" / "b")
    assert back.settings() == tokenizer.settings()
    assert back.report == tokenizer.report
    assert torch.equal(back.stus(graph).codes, tokenizer.stus(graph).codes)
    for until in (20 * DAY, LATER, None):
        one, other = (t.encode(graph, EVERYONE, until=until) for t in (back, tokenizer))
        assert torch.equal(one, other)
    assert torch.equal(codes(back.refit(graph, until=LATER)), codes(tokenizer.refit(graph, until=LATER)))
    assert {path.suffix for path in (tmp_path / "a" / "b").iterdir()} == {".json", ".pt"}


def test_settings_that_were_not_saved_are_the_default(name: str, tmp_path: Path) -> None:
    tokenizer = shared(name)
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    manifest = json.loads(path.read_text())
    if tokenizer.balanced is type(tokenizer)().balanced:
        del manifest["settings"]["balanced"]
    path.write_text(json.dumps(manifest))
    assert type(tokenizer).load(tmp_path).settings() == tokenizer.settings()


def test_shared_settings_are_named(name: str) -> None:
    settings = {"num_codebooks": 2, "codebook_size": 64, "unique": False, "balanced": True, "seed": 7}
    assert settings.items() <= TOKENIZERS[name](**settings).settings().items()
    with pytest.raises(TypeError, match="colour"):
        TOKENIZERS[name](colour=1)


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edited(path: Path, **changes: str | int) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (lambda folder: damaged(folder / "tokenizer.pt"), "tokenizer.pt is not the file that was saved"),
        (lambda folder: (folder / "tokenizer.pt").write_bytes(b""), "tokenizer.pt is not the file"),
        (lambda folder: damaged(folder / "report.json"), "report.json is not the file"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "damaged"),
        (
            lambda folder: edited(folder / "tokenizer.json", format="other"),
            "it holds 'other', not 'graphrec.Tokenizer/2': fit the model again",
        ),
        (lambda folder: edited(folder / "tokenizer.json", dim=3), "damaged"),
        (lambda folder: edited(folder / "tokenizer.json", codebook_size=2), "damaged"),
        (lambda folder: edited(folder / "tokenizer.json", **{"class": "Other"}), "it holds a Other"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, what, why: str) -> None:
    shared("residual_kmeans").save(tmp_path)
    what(tmp_path)
    with pytest.raises(DataError, match=why) as error:
        ResidualKMeans.load(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_the_folder_of_another_is_refused(tmp_path: Path) -> None:
    shared("random_codes").save(tmp_path)
    with pytest.raises(DataError, match="it holds a RandomCodes, not a ResidualKMeans"):
        ResidualKMeans.load(tmp_path)


@pytest.mark.parametrize("gone", ["tokenizer.json", "tokenizer.pt", "report.json"])
def test_a_missing_file_is_named(tmp_path: Path, gone: str) -> None:
    shared("residual_kmeans").save(tmp_path)
    (tmp_path / gone).unlink()
    with pytest.raises(FileNotFoundError, match=gone):
        ResidualKMeans.load(tmp_path)


def test_without_a_report_the_codes_are_the_same() -> None:
    graph = graph_of(planted_rows(0, groups=3, size=8, events=300), 24)
    with_report, without = (RandomCodes(seed=1).fit(graph, until=2**32, reports=one) for one in (True, False))
    assert torch.equal(with_report.table.codes, without.table.codes)
    with pytest.raises(RuntimeError, match="reports=False"):
        _ = without.report
    assert without.refit(graph, until=2**32).report.num_users == with_report.report.num_users
