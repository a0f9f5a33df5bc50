"""The loop: which hooks run when, with which numbers, and how it ends."""
from types import SimpleNamespace

import pytest
from mindspore.train.callback import Callback

from mindformers.trainer.loop import Loop


class Recorder(Callback):
    """Writes down every hook with step and epoch; asks for a stop after `stop_after`."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.stop_after = stop_after
        self.events = []

    def _note(self, hook, context):
        params = context.original_args()
        self.events.append((hook, params.cur_epoch_num, params.cur_step_num))

    def on_train_begin(self, run_context):
        self._note("begin", run_context)

    def on_train_epoch_begin(self, run_context):
        self._note("epoch_begin", run_context)

    def on_train_epoch_end(self, run_context):
        self._note("epoch_end", run_context)

    def on_train_step_end(self, run_context):
        params = run_context.original_args()
        self.events.append(("step", params.cur_epoch_num, params.cur_step_num, params.net_outputs))
        if params.cur_step_num == self.stop_after:
            run_context.request_stop()

    def on_train_end(self, run_context):
        self._note("end", run_context)


def run(recorder, **options):
    """Run a loop whose batches are their own numbers and whose step answers ten times its batch."""
    def batches(start):
        while True:
            yield (start,)
            start += 1
    loop = Loop(**{"step": lambda number: 10 * number, "batches": batches, "steps_per_epoch": 2, "last_step": 3,
                   "callbacks": [recorder], **options})
    return loop.run()


def test_hooks_in_order():
    recorder = Recorder()
    assert run(recorder) == 3
    assert recorder.events == [("begin", 1, 0), ("epoch_begin", 1, 1), ("step", 1, 1, 0), ("step", 1, 2, 10),
                               ("epoch_end", 1, 2), ("epoch_begin", 2, 3), ("step", 2, 3, 20), ("end", 2, 3)]


def test_resumed_loop_goes_on_inside_the_epoch():
    recorder = Recorder()
    assert run(recorder, first_step=3, last_step=5) == 5
    assert recorder.events == [("begin", 2, 3), ("epoch_begin", 2, 4), ("step", 2, 4, 30), ("epoch_end", 2, 4),
                               ("epoch_begin", 3, 5), ("step", 3, 5, 40), ("end", 3, 5)]


def test_callbacks_can_stop_the_run():
    recorder = Recorder(stop_after=2)
    assert run(recorder, last_step=9) == 2
    assert recorder.events[-2:] == [("epoch_end", 1, 2), ("end", 1, 2)]


def test_stop_is_asked_after_each_step():
    asked = []
    recorder = Recorder()
    assert run(recorder, last_step=9, should_stop=lambda wish: asked.append(wish) or len(asked) == 2) == 2
    assert asked == [False, False] and recorder.events[-1][0] == "end"


def test_nothing_left_to_do():
    recorder = Recorder()
    assert run(recorder, first_step=3, last_step=3) == 3
    assert [event[0] for event in recorder.events] == ["begin", "end"]


def test_errors_come_through():
    with pytest.raises(ZeroDivisionError):
        run(Recorder(), step=lambda number: number / SimpleNamespace(zero=0).zero)
