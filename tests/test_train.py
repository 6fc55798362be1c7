"""Training: row-sparse updates, resuming, early stopping, what is told, and two processes."""

from __future__ import annotations

import copy
import gc
import os
import re
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from elsewhere import FAR, Elsewhere
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader

from graphrec.data import DataError
from graphrec.loader import EpochShuffle
from graphrec.train import ReplacedRunWarning, RowSparseAdamW, num_processes, train
from graphrec.train.optim import clip_gradients

ROWS = 40
EXAMPLES = 64  # in batches of 7, halves of 4 and 3, and a last one that two processes cannot share


class Toy(nn.Module):
    """A number for each row: from a table and a layer, and from one more of each for rows from 30 on."""

    def __init__(self, *, dropout: float = 0.0, rows: int = ROWS) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.table = nn.Embedding(rows, 4, sparse=True)
            self.layer = nn.Linear(4, 1)
            self.rare = nn.Linear(4, 1)
            self.rare_bias = nn.Embedding(rows, 1, sparse=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, row: Tensor) -> Tensor:
        x = self.dropout(self.table(row))
        out = self.layer(x).squeeze(1)
        rare = (row >= 30).nonzero().squeeze(1)
        if len(rare):
            more = self.rare(x[rare]) + self.rare_bias(row[rare])
            out = out.index_add(0, rare, more.squeeze(1))
        return out


def examples(index: Tensor) -> tuple[Tensor, Tensor]:
    row = index * 7 % ROWS
    return row, (row.float() / 10).sin()


def loader(batch_size: int = 7, size: int = EXAMPLES) -> DataLoader[Tensor]:
    return DataLoader(range(size), batch_size=batch_size, sampler=EpochShuffle(size, seed=5))  # type: ignore[arg-type]


def toy_losses(network: Toy, index: Tensor) -> dict[str, Tensor]:
    row, goal = examples(index)
    error = (network(row) - goal).square().mean()
    return {"loss": error, "events": torch.tensor(float(len(row))), "double": 2 * error}


def fit(network: Toy, **kwargs: Any) -> list[dict[str, float]]:
    def validate() -> dict[str, float]:
        row, goal = examples(torch.arange(EXAMPLES))
        return {"val_score": -float((network(row) - goal).square().mean())}

    options: dict[str, Any] = {
        "losses": lambda index, epoch: toy_losses(network, index),
        "validate": validate,
        "steps_per_epoch": 10,
        "max_epochs": 3,
        "patience": 9,
        "lr": 0.03,
        "seed": 1,
        "progress": False,
        "key": {"data": "toy"},
    }
    return train(network, kwargs.pop("batches", loader()), **(options | kwargs))


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def scripted(scores: list[float]) -> Callable[[], dict[str, float]]:
    left = iter(scores)
    return lambda: {"val_score": next(left)}


# Row-sparse updates


def table_and_gradients(seed: int, rows: int, steps: int) -> tuple[Tensor, list[Tensor]]:
    """Gradients are between .5 and 1.5 in size: where they are tiny, `eps` makes a difference."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(rows, 3, generator=generator)
    drawn = [torch.rand(rows, 3, generator=generator) - 0.5 for _ in range(steps)]
    return start, [0.5 * value.sign() + 2 * value for value in drawn]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 5), st.sampled_from([0.0, 0.1]))
def test_with_every_row_touched_it_is_adamw(seed: int, rows: int, steps: int, decay: float) -> None:
    start, gradients = table_and_gradients(seed, rows, steps)
    dense, table, other = (nn.Parameter(start.clone()) for _ in range(3))
    reference = torch.optim.AdamW([dense], lr=0.05, weight_decay=decay, fused=True)
    ours = RowSparseAdamW([other], [table], lr=0.05, weight_decay=decay)
    for gradient in gradients:
        dense.grad, other.grad, table.grad = gradient, gradient.clone(), gradient.to_sparse(1)
        reference.step()
        ours.step()
    torch.testing.assert_close(table, dense, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(other, dense, atol=0, rtol=0)


def test_rows_without_gradient_do_not_move() -> None:
    table = nn.Parameter(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))
    ours = RowSparseAdamW([], [table], lr=0.05, weight_decay=0.1)
    for rows in ([0, 1, 2, 1], [0, 2], [2]):
        before = table.detach().clone()
        values = torch.ones(len(rows), 3)
        table.grad = torch.sparse_coo_tensor(torch.tensor([rows]), values, table.shape, check_invariants=True)
        ours.step()
        moved = (table != before).any(1)
        assert moved.nonzero().squeeze(1).tolist() == sorted(set(rows))


def test_the_optimizer_goes_on_from_its_state() -> None:
    start, gradients = table_and_gradients(0, 5, 4)
    tables = [nn.Parameter(start.clone()) for _ in range(2)]
    others = [nn.Parameter(start.clone()) for _ in range(2)]
    made = [RowSparseAdamW([o], [t], lr=0.05, weight_decay=0.1) for o, t in zip(others, tables, strict=True)]
    for number, gradient in enumerate(gradients):
        if number == 2:
            tables[1].data, others[1].data = tables[0].data.clone(), others[0].data.clone()
            made[1].load_state_dict(copy.deepcopy(made[0].state_dict()))
        for optimizer, table, other in zip(made, tables, others, strict=True):
            table.grad, other.grad = gradient.to_sparse(1), gradient.clone()
            for group in optimizer.param_groups:
                group["lr"] = 0.05 / (1 + number)  # as a schedule would
            if optimizer is made[0] or number >= 2:
                optimizer.step()
    assert torch.equal(tables[0], tables[1])
    assert torch.equal(others[0], others[1])


def test_a_schedule_reaches_both_parts() -> None:
    start, (gradient,) = table_and_gradients(0, 5, 1)
    table, other = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours = RowSparseAdamW([other], [table], lr=0.05, weight_decay=0.1)
    torch.optim.lr_scheduler.LambdaLR(ours, lambda step: 0.0)
    table.grad, other.grad = gradient.to_sparse(1), gradient.clone()
    ours.step()
    assert torch.equal(table, start)
    assert torch.equal(other, start)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.floats(0.01, 10))
def test_gradients_are_clipped_at_their_joint_norm(rows: list[int], max_norm: float) -> None:
    index = torch.tensor(rows)
    norms, results = [], []
    for sparse in (False, True):
        table = nn.Parameter(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
        other = nn.Parameter(torch.ones(3))
        looked_up = nn.functional.embedding(index, table, sparse=sparse)
        (looked_up * other).square().sum().backward()
        if sparse:
            norms.append(clip_gradients([table, other], max_norm))
        else:
            norms.append(float(nn.utils.clip_grad_norm_([table, other], max_norm)))
        assert table.grad is not None
        assert table.grad.is_sparse == sparse
        results.append((table.grad.to_dense(), other.grad))
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    torch.testing.assert_close(results[0], results[1])


def test_every_step_is_clipped_tables_included() -> None:
    norms = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if isinstance(optimizer, RowSparseAdamW):
            groups = (group["params"] for group in optimizer.param_groups)
            gradients = [w.grad.to_dense() for weights in groups for w in weights if w.grad is not None]
            norms.append(float(nn.utils.get_total_norm(gradients)))

    network = Toy()

    def losses(index: Tensor, epoch: int) -> dict[str, Tensor]:
        terms = toy_losses(network, index)
        return terms | {"loss": 1000 * terms["loss"]}

    handle = register_optimizer_step_post_hook(note)
    try:
        fit(network, losses=losses, max_epochs=1)
    finally:
        handle.remove()
    assert norms == pytest.approx([1.0] * 10, rel=1e-4)


# Epochs


def test_the_weights_of_the_best_epoch_are_kept() -> None:
    seen: list[dict[str, Tensor]] = []
    network = Toy()
    scores = iter([0.1, 0.4, 0.4, 0.3, 0.9])

    def validate() -> dict[str, float]:
        seen.append(weights(network))
        assert not network.training
        assert not torch.is_grad_enabled()
        return {"val_score": next(scores), "val_other": 0.5}

    curve = fit(network, validate=validate, max_epochs=9, patience=2)
    assert [row["epoch"] for row in curve] == [0, 1, 2, 3]  # two epochs without a better one
    assert [row["val_score"] for row in curve] == [0.1, 0.4, 0.4, 0.3]
    assert curve[0].keys() == {"loss", "double", "val_score", "val_other", "epoch"}
    assert curve[0]["double"] == pytest.approx(2 * curve[0]["loss"])
    assert not network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, seen[1][name]), name
        assert not torch.equal(value, seen[3][name]), name


def test_the_curve_weighs_batches_by_events() -> None:
    network = Toy()

    def losses(index: Tensor, epoch: int) -> dict[str, Tensor]:
        many = len(index) == 7
        loss = 0.0 * network(index % ROWS).sum() + (1.0 if many else 8.0)
        odd = torch.tensor(3.0 if many else torch.nan)  # a mean over no events
        return {"loss": loss, "odd": odd, "events": torch.tensor(7.0 if many else 0.0)}

    curve = fit(network, losses=losses, max_epochs=1)
    assert curve[0]["loss"] == pytest.approx(1.0)
    assert curve[0]["odd"] == pytest.approx(3.0)


def test_every_epoch_is_whole_and_in_its_own_order() -> None:
    class Growing:
        """Epochs of 2, 3 and 4 batches."""

        epoch = -1

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __len__(self) -> int:
            return self.epoch + 2

        def __iter__(self):
            return iter(torch.arange(6).expand(len(self), -1) + self.epoch)

    network, seen = Toy(), []

    def losses(index: Tensor, epoch: int) -> dict[str, Tensor]:
        seen.append((epoch, int(index[0])))
        return {"loss": network(index).square().mean(), "events": torch.tensor(6.0)}

    fit(network, batches=Growing(), losses=losses)
    assert seen == [(epoch, epoch) for epoch in range(3) for _ in range(epoch + 2)]


def test_the_callers_random_state_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    fit(Toy(dropout=0.5), max_epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_loader_is_let_go_of() -> None:
    """By counting references alone: a graph behind it may be most of the memory there is."""
    batches, network = loader(), Toy()
    kept = weakref.ref(batches)
    gc.disable()
    try:
        fit(network, batches=batches, max_epochs=1)
        del batches
        assert kept() is None
    finally:
        gc.enable()


def test_a_seed_fixes_dropout() -> None:
    results = []
    for seed in (1, 1, 2):
        network = Toy(dropout=0.5)
        fit(network, seed=seed, max_epochs=1)
        results.append(network.table.weight.detach())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


# Interruptions


@pytest.fixture
def sigint() -> Iterator[Any]:
    """Python's own handler of the signal, which a process started in the background ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_arrives_and_the_run_goes_on(tmp_path: Path, sigint: Any) -> None:
    """A real signal in the third epoch; the result is that of a run without it, to the last bit."""
    whole = Toy(dropout=0.3)
    expected = fit(whole)
    broken = Toy(dropout=0.3)

    def losses(index: Tensor, epoch: int) -> dict[str, Tensor]:
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return toy_losses(broken, index)

    with pytest.raises(KeyboardInterrupt):
        fit(broken, losses=losses, folder=tmp_path)
    assert signal.getsignal(signal.SIGINT) is sigint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]
    resumed = Toy(dropout=0.3)
    curve = fit(resumed, folder=tmp_path)
    assert curve[2] == expected[2]
    assert [row["val_score"] for row in curve] == [row["val_score"] for row in expected]
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@pytest.mark.parametrize(("max_epochs", "patience"), [(2, 9), (9, 1)])
def test_a_finished_run_is_read_and_not_trained_further(
    tmp_path: Path, max_epochs: int, patience: int
) -> None:
    first, again = Toy(), Toy()
    options: dict[str, Any] = {"max_epochs": max_epochs, "patience": patience, "folder": tmp_path}
    curve = fit(first, validate=scripted([0.2, 0.1]), **options)
    assert len(curve) == 2
    assert fit(again, validate=scripted([]), **options) == curve
    assert not again.training
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_best_is_the_weights_alone(tmp_path: Path) -> None:
    fit(Toy(), folder=tmp_path, max_epochs=1)
    best, last = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert "optimizer_states" in last
    assert "optimizer_states" not in best


def wider() -> Toy:
    return Toy(rows=ROWS + 1)


def other_values() -> Toy:
    network = Toy()
    nn.init.ones_(network.layer.weight)
    return network


@pytest.mark.parametrize(
    ("network", "changed", "said"),
    [
        (wider, {}, "another network"),
        (other_values, {}, "other initial values of the network"),
        (Toy, {"seed": 2}, "seed=1, not 2"),
        (Toy, {"max_epochs": 3}, "max_epochs=2, not 3"),
        (Toy, {"patience": 8}, "patience=9, not 8"),
        (Toy, {"lr": 0.02}, "lr=0.03, not 0.02"),
        (Toy, {"weight_decay": 0.5}, "weight_decay=0.01, not 0.5"),
        (Toy, {"key": {"data": "others"}}, "another data"),
        (Toy, {"key": {"data": "toy", "until": 3}}, "another until"),
        (Toy, {"key": {"data": torch.ones(3)}, "seed": 3}, "another data and seed=1, not 3"),
    ],
)
def test_another_run_is_not_resumed_but_starts_anew_and_says_so(
    network: Callable[[], Toy], changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    fit(Toy(), folder=tmp_path, max_epochs=2)
    resumed = network()
    with pytest.warns(ReplacedRunWarning) as caught:
        curve = fit(resumed, folder=tmp_path, **({"max_epochs": 2} | changed))
    assert [str(one.message) for one in caught] == [
        f"{tmp_path}: its checkpoints are of a run with {said}; training starts from the beginning"
    ]
    fresh = network()
    assert fit(fresh, **({"max_epochs": 2} | changed)) == curve
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(fresh).items())
    # The folder is now the second run's, which is not trained again.
    assert fit(network(), validate=scripted([]), folder=tmp_path, **({"max_epochs": 2} | changed)) == curve


def test_other_code_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(Toy(), folder=tmp_path, max_epochs=1)
    monkeypatch.setattr("graphrec.train.checkpoint.digest_code", lambda: "0" * 64)
    with pytest.warns(ReplacedRunWarning, match="another version of graphrec"):
        fit(Toy(), folder=tmp_path, max_epochs=1)


def test_a_checkpoint_of_before_keys_is_of_another_version(tmp_path: Path) -> None:
    fit(Toy(), folder=tmp_path, max_epochs=1)
    for name in ("last.ckpt", "best.ckpt"):
        content = torch.load(tmp_path / name, weights_only=True)
        del content["run"]["key"]
        torch.save(content, tmp_path / name)
    with pytest.warns(ReplacedRunWarning, match="another version of graphrec"):
        fit(Toy(), folder=tmp_path, max_epochs=1)


def test_the_best_of_one_run_and_the_last_of_another_are_not_mixed(tmp_path: Path) -> None:
    fit(Toy(), folder=tmp_path / "a", max_epochs=2)
    fit(Toy(), folder=tmp_path / "b", max_epochs=2, seed=2)
    (tmp_path / "b" / "best.ckpt").replace(tmp_path / "a" / "best.ckpt")
    with pytest.warns(ReplacedRunWarning, match=r"seed=2, not 1"):
        fit(Toy(), folder=tmp_path / "a", max_epochs=2)


def test_a_run_replaced_while_it_trains_is_refused(tmp_path: Path) -> None:
    network = Toy()

    def losses(index: Tensor, epoch: int) -> dict[str, Tensor]:
        if epoch == 1 and not replaced:
            replaced.append(True)
            with pytest.warns(ReplacedRunWarning):
                fit(Toy(), folder=tmp_path, max_epochs=1, seed=2)
        return toy_losses(network, index)

    replaced: list[bool] = []
    with pytest.raises(DataError, match=r"best\.ckpt: another run has replaced it"):
        fit(network, losses=losses, validate=scripted([0.2, 0.1]), folder=tmp_path, max_epochs=2)


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_file_in_the_place_of_a_checkpoint_is_left_alone(name: str, tmp_path: Path) -> None:
    fit(Toy(), folder=tmp_path, max_epochs=1)
    for content in ({"something": 1}, {"run": 3}, [1]):
        torch.save(content, tmp_path / name)
        with pytest.raises(DataError, match=f"{name}: not a checkpoint of a training run"):
            fit(Toy(), folder=tmp_path, max_epochs=1)
    for noise in (b"", b"cut off", b"PK\x03\x04"):
        (tmp_path / name).write_bytes(noise)
        with pytest.raises(DataError, match=f"{name}: not a checkpoint of a training run"):
            fit(Toy(), folder=tmp_path, max_epochs=1)
        assert (tmp_path / name).read_bytes() == noise


def test_a_folder_needs_a_key(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a key"):
        fit(Toy(), folder=tmp_path, key=None)


KILLED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = {paths!r}
from test_train import Toy, fit, toy_losses
network = Toy()
def losses(index, epoch):
    if epoch == 2:
        os.kill(os.getpid(), signal.{name})
    return toy_losses(network, index)
fit(network, losses=losses)
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_an_ended_run_without_a_folder_leaves_no_file(name: str, tmp_path: Path) -> None:
    script = KILLED.format(paths=sys.path, name=name)
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    # Python's own exit code for an interrupt depends on what else has been imported.
    ended = done.returncode == -signal.SIGKILL or done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert ended, done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# What is told


@pytest.mark.parametrize("term", ["loss", "double"])
def test_a_loss_that_is_not_finite_names_epoch_and_term(term: str) -> None:
    network = Toy()

    def losses(index: Tensor, epoch: int) -> dict[str, Tensor]:
        loss = network(index % ROWS).square().mean()
        out = {"loss": loss, "double": 2 * loss.detach(), "events": torch.tensor(6.0)}
        return out | {term: out[term] * torch.nan} if epoch == 1 else out

    with pytest.raises(FloatingPointError, match=f"^epoch 2: '{term}' of a batch is not finite$"):
        fit(network, losses=losses)


def test_a_score_that_is_not_finite_names_epoch_and_term() -> None:
    scores = iter([{"val_score": 1.0}, {"val_score": 1.0, "val_new": float("inf")}])
    with pytest.raises(FloatingPointError, match=r"^epoch 2: 'val_new' of validation is not finite$"):
        fit(Toy(), validate=lambda: next(scores))


def test_nothing_to_train_on() -> None:
    with pytest.raises(ValueError, match="the loader yields no batch"):
        fit(Toy(), batches=[])
    for name in ("steps_per_epoch", "max_epochs", "patience"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            fit(Toy(), **{name: 0})


def test_a_line_an_epoch_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    fit(Toy(), progress=True, max_epochs=2)
    out, err = capfd.readouterr()
    assert not out
    lines = err.splitlines()
    assert len(lines) == 2
    pattern = r"epoch {}/2: loss \d+\.\d{{3}}, val_score -?\d+\.\d{{3}}, \d+ s, {}"
    assert re.fullmatch(pattern.format(1, r"at most \d+ s left"), lines[0])
    assert re.fullmatch(pattern.format(2, "done"), lines[1])


def test_a_bar_on_a_terminal(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fit(Toy(), progress=True, max_epochs=2)
    out, err = capfd.readouterr()
    assert "10/10" in out + err
    assert "epoch 1/2" not in err


def test_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    fit(Toy(), progress=False, max_epochs=2)
    assert capfd.readouterr() == ("", "")


# Where the network is


def test_the_absent_device_has_the_rules_of_a_gpu() -> None:
    network, index = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3)), torch.tensor([1, 0])
    with Elsewhere(network) as far:
        out = network(index.to(network[1].weight.device))
        assert out.device == FAR
        assert (out + torch.tensor(1.0)).cpu().device.type == "cpu"
        assert out[index].device == FAR
        for mixed in (
            lambda: network(index),
            lambda: out + torch.ones(2, 3),
            lambda: torch.cat([out, torch.ones(1, 3)]),
            lambda: torch.where(torch.ones(2, 1, dtype=torch.bool), out, 0.0),
            lambda: torch.ones(3)[index.to(FAR)],
            lambda: out.detach().numpy(),
        ):
            with pytest.raises(RuntimeError):
                mixed()
        assert far.met > 0
    torch.testing.assert_close(out.as_subclass(Tensor), network(index))


# Two processes


def main(folder: Path) -> None:
    """What each process of the test below does."""
    rank = int(os.environ["RANK"])
    assert num_processes() == 2
    network, seen = Toy(), []
    if rank == 1:
        nn.init.ones_(network.layer.weight)  # the first process's initial values count
    validate = scripted([0.1, 0.5, 0.3]) if rank == 0 else scripted([])  # the second is not asked

    def losses(index: Tensor, epoch: int) -> dict[str, Tensor]:
        seen.append(index)
        return toy_losses(network, index)

    # The second process's folder is its own, to see that it writes nothing.
    curve = fit(network, losses=losses, validate=validate, folder=folder / str(rank), progress=True)
    result = {"weights": network.state_dict(), "curve": curve, "training": network.training, "seen": seen}
    torch.save(result, folder / f"{rank}.pt")


def test_two_processes_are_one(tmp_path: Path) -> None:
    """The same weights in both, of the best epoch, and those of one process but for the order of sums."""
    run = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    command = [sys.executable, *run, __file__, str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^epoch \d/3", done.stderr, flags=re.MULTILINE)) == 3
    assert "arning" not in done.stderr, done.stderr
    one = Toy()
    curve = fit(one, validate=scripted([0.1, 0.5, 0.3]))
    both = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for first, second, whole in zip(both[0]["seen"], both[1]["seen"], [*loader()], strict=False):
        parts = torch.cat([first, second]).sort().values if len(whole) > 1 else first
        assert torch.equal(parts, whole.sort().values)
    assert len(both[0]["seen"]) == len(both[1]["seen"]) == 30
    assert both[0]["curve"] == both[1]["curve"]
    assert not both[0]["training"]
    for name, value in one.state_dict().items():
        assert torch.equal(both[0]["weights"][name], both[1]["weights"][name]), name
        torch.testing.assert_close(both[0]["weights"][name], value, atol=1e-5, rtol=1e-5)
    for row, other in zip(curve, both[0]["curve"], strict=True):
        # The batch of one seed is everyone's, and so counts twice in the curve.
        assert row["loss"] == pytest.approx(other["loss"], rel=0.05)
    assert (tmp_path / "0" / "last.ckpt").exists()
    assert not list((tmp_path / "1").iterdir())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
