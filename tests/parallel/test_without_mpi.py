"""What needs no MPI: ranks that are threads train as one process does, shares and places, an exchange without a token."""

import numpy as np
import pytest
from small_run import MODEL
from threaded_ranks import ranks_in_threads

import minids
from minids.config import ParallelConfig, TrainConfig
from minids.errors import MinidsError
from minids.model import DeepSeekV3
from minids.parallel.communicator import Alone, Handle, even_bounds
from minids.parallel.exchange import ExpertExchange
from minids.parallel.group import RankGroup, process_group
from minids.parallel.parts import owner_of, tails
from minids.training.loop import training_steps
from minids.training.process_group import ProcessGroup
from minids.training.workers import pieces

CONFIG = MODEL.replace(vocab_size=32, bos_token_id=None, eos_token_id=None, num_hidden_layers=2)
TRAIN = TrainConfig(steps=3, batch_size=3, context_length=8, learning_rate=3e-3, warmup_steps=1)


class Given:
    def __init__(self):
        self.rng = np.random.default_rng(5)

    def next(self):
        rows = self.rng.integers(0, 32, (TRAIN.batch_size, TRAIN.context_length + 1))
        return rows[:, :-1], rows[:, 1:]


def trained(group, train: TrainConfig, count: int = 1) -> dict[str, np.ndarray]:
    """Everything that a run leaves, as of one process."""
    model = group.parted(DeepSeekV3(CONFIG, seed=3, dtype=np.float64))
    optimizer, losses = group.optimizer(model.parameters, train), []
    with group.workers(model, count) as workers:
        for done in training_steps(model, optimizer, Given(), train, workers):
            losses.append([done.losses.total, done.norm, *done.losses.counts.reshape(-1)])
    state = optimizer.state()
    optimizer.restore(state)
    assert all(np.array_equal(again, state[name]) for name, again in optimizer.state().items()), "restored, it is another"
    with group.whole(model) as whole:
        arrays = {p.name: p.value.copy() for p in whole.parameters} | whole.parameters.buffers
        return arrays | {"losses": np.array(losses), "m": state["m"], "v": state["v"]}


@pytest.mark.usefixtures("reference_backend")
@pytest.mark.parametrize(
    ("ranks", "parallel", "train", "tolerance"),
    [
        (3, {}, {"optimizer": "muon", "gradient_accumulation_steps": 2}, 0.0),
        (4, {"zero_1": False}, {}, 0.0),
        (4, {"expert_parallel": 4, "ranks_per_node": 2}, {"optimizer": "muon"}, 1e-12),
        (4, {"expert_parallel": 2, "data_parallel": 2}, {"gradient_accumulation_steps": 2}, 1e-12),
    ],
)
def test_ranks_train_as_one_process_does(ranks, parallel, train, tolerance):
    train = TRAIN.replace(**train)
    one = trained(ProcessGroup(), train, ranks if tolerance == 0 else 1)
    for several in ranks_in_threads(ranks, lambda c: trained(RankGroup(c, ParallelConfig(**parallel)), train)):
        for name, array in one.items():
            off = float(np.abs(several[name] - array).max(initial=0)) / max(float(np.abs(array).max(initial=0)), 1e-9)
            assert off <= tolerance, f"{name} differs by {off:.2g}"


def test_pieces_that_lie_on_several_ranks_come_together_on_their_first():
    rng = np.random.default_rng(0)
    for _ in range(200):
        size, ranks, count = int(rng.integers(0, 40)), int(rng.integers(1, 7)), int(rng.integers(1, 17))
        bounds = [0, *sorted(rng.integers(0, size + 1, ranks - 1).tolist()), size]
        its, passed = pieces(size, count), tails(bounds, pieces(size, count))
        for piece in its:
            owner = owner_of(piece.start, bounds)
            held = list(range(piece.start, min(piece.stop, bounds[owner + 1])))
            if piece.stop > bounds[owner + 1]:
                held += [i for tail in passed if tail.owner == owner for i in range(tail.start, tail.stop)]
            assert held == list(range(piece.start, piece.stop)), f"{piece} of {bounds}"


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("precision", ["fp32", "fp8", "bf16"])
def test_a_rank_without_a_token_takes_part_in_every_precision(backend, precision):
    with minids.use_backend(backend):
        model = DeepSeekV3(CONFIG.replace(precision=precision), seed=0)
        for layer in model.moe_layers:
            layer.exchange = ExpertExchange(Alone(), [0, CONFIG.n_routed_experts])
            layer.exchange.idle(layer)()
    assert not model.parameters.grads.any(), "no token has left a gradient"


def test_shared_experts_work_while_tokens_travel():
    """They are called after the tokens have left and before those that come are waited for, forward and backward."""

    def seen(ranks) -> list[str]:
        group = RankGroup(ranks, ParallelConfig(expert_parallel=2))
        layer = group.parted(DeepSeekV3(CONFIG, seed=3, dtype=np.float64)).moe_layers[0]
        events, across = [], layer.exchange.across.ranks
        start = across.start_all_to_all_v

        def watched(rows, out, came, what=""):
            handle, said = start(rows, out, came, what), what == "across dispatch"
            events.extend(["sent"] * said)
            return Handle(lambda: (events.extend(["came"] * said), handle.wait())[1])

        across.start_all_to_all_v = watched
        forward, backward = layer.shared.forward, layer.shared.backward
        layer.shared.forward = lambda x: (events.append("shared"), forward(x))[1]
        layer.shared.backward = lambda dy, saved: (events.append("shared"), backward(dy, saved))[1]
        y, saved = layer.forward(np.ones((1, 4, CONFIG.hidden_size)))
        layer.backward(y, saved)
        return events

    assert ranks_in_threads(2, seen) == [["sent", "shared", "came"] * 2] * 2


def test_who_holds_what_when_experts_are_dealt_unevenly():
    def held(c) -> list[tuple[int, ...]]:
        model = RankGroup(c, ParallelConfig(expert_parallel=3)).parted(DeepSeekV3(CONFIG, seed=3))
        return [layer.w_up.shape[0] for layer in model.moe_layers], model.parameters.values.size

    found = ranks_in_threads(3, held)
    assert [experts[0] for experts, _ in found] == np.diff(even_bounds(CONFIG.n_routed_experts, 3)).tolist()
    assert max(size for _, size in found) < DeepSeekV3(CONFIG, seed=3).parameters.values.size


def test_a_rank_that_raises_ends_the_others():
    def work(c) -> None:
        if c.rank == 1:
            raise KeyError("a bug here")
        c.barrier()

    with pytest.raises(KeyError, match="a bug here"):
        ranks_in_threads(3, work)


@pytest.mark.parametrize("settings", [{"ranks_per_node": 2}, {"low_precision_exchange": True}, {"expert_parallel": 0}])
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(MinidsError, match=next(iter(settings))):
        ParallelConfig(**settings)


@pytest.mark.parametrize("config", [{"expert_parallel": 2}, {"data_parallel": 2}])
def test_several_are_asked_for_where_there_is_one(config):
    with pytest.raises(MinidsError, match="mpiexec -n 2"):
        process_group(ParallelConfig(**config))
