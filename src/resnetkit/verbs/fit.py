"""The stages of a training, one after the other: their steps, their epochs, their states, and why they end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from resnetkit import run
from resnetkit.errors import DivergedError, Interrupted, ModelError
from resnetkit.nn.resnet import ResNet
from resnetkit.settings import Recipe
from resnetkit.training import state as states
from resnetkit.training.device import from_first, largest, same_as_first
from resnetkit.training.optim import make_optimizer
from resnetkit.training.state import Saver, TrainState, growth_of
from resnetkit.training.train import Tick, plan_of
from resnetkit.training.train import train as ticks
from resnetkit.verbs.console import Signals, bar, note
from resnetkit.verbs.job import Job
from resnetkit.verbs.stages import LAYER4, Stage, fit_head, layer4, renew_statistics, stored_maps, whole

ENOUGH = 1_000  # a reason to stop that is no signal; larger than every signal's number


@dataclass(frozen=True)
class Reached:
    """What the stages so far have reached: a row for each epoch, the best score, and its epoch."""

    history: tuple[dict[str, Any], ...] = ()
    score: float = -math.inf
    epoch: int = 0


def train_stages(
    job: Job, network: nn.Module, signals: Signals, resume: bool, fingerprint: str
) -> tuple[nn.Module, Reached]:
    """Train all stages; gives the network with the best weights of all, and how it went.

    A resumed run begins with the last stage that has a state, which holds what the stages before it have reached.

    Raises:
        Interrupted, DivergedError: both say how to go on.
    """
    last, reached, recipe = whole(job, network), Reached(), job.recipe
    begun_before = [folder for folder in (last.folder, last.folder / LAYER4) if resume and states.saved_states(folder)]
    stored_first = isinstance(network, ResNet) and (recipe.finetune.head or recipe.finetune.views)
    if isinstance(network, ResNet) and stored_first and last.folder not in begun_before:
        started = time.monotonic()
        if recipe.finetune.statistics == "renewed":
            renew_statistics(job, network, signals)
        tail, stored = stored_maps(job, network, signals)
        tells_apart = len(np.unique(job.dataset.select("train").targets)) > 1
        if recipe.finetune.head and tells_apart and not begun_before:
            row = fit_head(job, tail, stored, started)
            reached = Reached((row,), -(math.inf if row["val_loss"] is None else row["val_calibrated_loss"]))
            if job.setup.rank == 0:
                write_history(job.folder, reached.history)
        if recipe.finetune.views:
            _, reached = _train(job, layer4(job, network, stored), reached, signals, (resume, fingerprint))
    if last.epochs or not reached.history:
        network, reached = _train(job, last, reached, signals, (resume, fingerprint))
    return network, reached


def begun(job: Job, stage: Stage, reached: Reached, fingerprint: str) -> TrainState:
    """The state of a stage before its first step; the best weights are those that it starts from."""
    optim, network = job.recipe.optim, stage.network
    state = TrainState(network, make_optimizer(network, optim), stage.total_steps, fingerprint=fingerprint)
    if isinstance(network, ResNet):
        state.growth = growth_of(job.recipe, stage.total_steps)
    if optim.ema_decay:
        state.average = _copied(network)
    if reached.history:
        state.history, state.best = [*reached.history], _copied(network)
        state.best_score, state.best_epoch = reached.score, reached.epoch
    return state


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _train(
    job: Job, stage: Stage, reached: Reached, signals: Signals, how: tuple[bool, str]
) -> tuple[nn.Module, Reached]:
    """One stage, from its newest state where the run is resumed; its network has the best weights afterwards."""
    resume, fingerprint = how
    state = begun(job, stage, reached, fingerprint)
    if resume:
        _resume(job, stage, state)
    late = largest(int(time.monotonic() >= job.deadline), job.setup)
    if not late or not state.history:
        _fit(job, stage, state, signals)
    kept = state.best if state.best is not None else state.evaluated()
    same_as_first(kept, job.setup)
    state.network.load_state_dict(kept)
    return state.network, Reached(tuple(state.history), state.best_score, state.best_epoch)


def _resume(job: Job, stage: Stage, state: TrainState) -> None:
    """Load the newest state that is whole; an older one with a loud note where the newest is damaged."""
    found = states.load_newest(state, stage.folder)
    if from_first({"step": state.step}, job.setup)["step"] != state.step:
        fix = "give all of them the same run folder"
        raise ModelError("the processes find different states", path=job.folder, fix=fix)
    if found is None:
        note(f"no state of {stage.name} was saved yet: starting from the first step", job.quiet)
    else:
        note(f"resuming at step {state.step} of {state.total_steps}", job.quiet)


def write_history(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """results.csv: a row for every epoch."""
    run.log_rows(folder / "results.csv", tuple(history[-1]), history)


def _fit(job: Job, stage: Stage, state: TrainState, signals: Signals) -> None:
    """Train a stage from where its state is to its end, the time limit, or the end of patience.

    Raises:
        Interrupted, DivergedError: both say how to go on.
    """
    try:
        stopped_by = _loop(job, stage, state, signals)
    except DivergedError as error:
        kept = states.saved_states(stage.folder)
        run.log_event(job.folder, "diverged", {"stage": stage.name, "step": state.step})
        where = f"the last good state is {kept[-1].relative_to(job.folder)}" if kept else "no state was saved yet"
        raise DivergedError(f"{error.what}; {where}", path=job.folder, fix=error.fix) from error
    if stopped_by:
        command = f"resnetkit train --resume --out {job.folder}"
        raise Interrupted(stopped_by, path=job.folder, fix=f"saved at step {state.step}; go on with: {command}")


def _loop(job: Job, stage: Stage, state: TrainState, signals: Signals) -> int:
    """Step after step; gives the number of the signal that all processes stopped for, or 0.

    A signal that comes while they agree is acted on after the next step, so what one has received is never unset.
    """
    saver = Saver()
    own = [row["seconds"] for row in state.history if row["stage"] == stage.name]
    started = time.monotonic() - (float(own[-1]) if own else 0.0)
    with bar(f"training {stage.name}", state.total_steps, done=state.step, quiet=job.quiet) as advance:
        for tick in _ticks(job, stage, state):
            if tick.epoch:
                _end_epoch(job, stage, state, tick, time.monotonic() - started)
            advance(tick.step, _words(job.task.target.headline, state, tick))
            over = bool(tick.epoch) and _patience_is_over(job.recipe, state)
            reason = signals.received or (ENOUGH if over or time.monotonic() > job.deadline else 0)
            stop = largest(reason, job.setup)
            signal = stop if stop < ENOUGH else 0
            if job.setup.rank == 0 and (signal or (saver.due(tick.epoch is not None) and not stop)):
                saver.save(state, stage.folder)
            if stop:
                return signal
    return 0


def _ticks(job: Job, stage: Stage, state: TrainState) -> Iterator[Tick]:
    """All steps that are left; between two of them the network may grow."""
    plan = plan_of(stage.loader, job.setup)
    for end in state.phases():
        if state.growth and state.step == state.growth.step:
            states.grow(state, job.recipe.train.seed)
            note(f"{job.recipe.grow.from_} grows into {state.growth.into}", job.quiet)
        batches = stage.loader.batches(state.step, end, hands=job.setup.hands)
        yield from ticks(state, batches, stage.loader.objective, plan)


def _words(headline: str, state: TrainState, tick: Tick) -> str:
    last = state.history[-1] if state.history else {}
    score = last.get(f"val_{headline}")
    val = f"  val {100 * score:.1f} %" if score is not None else ""
    return f"loss {tick.loss:.3f}{val}"


def _patience_is_over(recipe: Recipe, state: TrainState) -> bool:
    return (
        bool(recipe.train.patience)
        and _epochs(state) - max(state.best_epoch, _epochs_before(state)) >= recipe.train.patience
    )


def _epochs(state: TrainState) -> int:
    """Epochs done, those of the stages before included."""
    return int(state.history[-1]["epoch"]) if state.history else 0


def _epochs_before(state: TrainState) -> int:
    """Epochs of the stages before: each stage has a patience of its own."""
    return sum(row.get("stage") not in ("head", state.history[-1].get("stage")) for row in state.history)


def _end_epoch(job: Job, stage: Stage, state: TrainState, tick: Tick, seconds: float) -> None:
    """Score the validation split, keep the best weights, and write the row of results.csv."""
    assert tick.epoch is not None
    found, score = stage.validate(state)
    number = _epochs(state) + 1
    # without validation images the last epoch is the best
    best = state.keep_best(number if score is None else score, number)
    row = {
        "epoch": number,
        "stage": stage.name,
        "step": tick.step,
        "train_loss": tick.epoch.loss,
        **found,
        "lr": tick.lr,
        "best": int(best),
        "seconds": round(seconds, 1),
    }
    state.history.append(row)
    if job.setup.rank == 0:
        write_history(job.folder, state.history)
        run.log_event(job.folder, "epoch", row)
