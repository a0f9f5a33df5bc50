"""Callbacks around MindSpore's own tools, and the ones that are refused by name."""
import os

from mindspore.train import Callback

from mindformers.tools.errors import UnsupportedError
from mindformers.tools.logger import logger
from mindformers.tools.utils import get_output_subpath, get_real_rank


class ProfileMonitor(Callback):
    """Profile the steps from start_step to stop_step with `mindspore.profiler` into ``<output>/profile/rank_N``.

    Args:
        start_step, stop_step (int): first and last profiled step. Default: 1, 10.
        output_path (str): Default: None, ``<output>/profile/rank_N``.
        profile_rank_ids (list[int]): profile only these ranks. Default: None, all.
        profile_memory (bool), with_stack (bool): passed to the profiler. Default: False.
        start_profile, profile_pipeline, profile_communication, config, profiler_level, data_simplification: settings
            of accelerators; only their defaults are carried.

    Raises:
        ValueError: start_step or stop_step out of order; profile_communication without start_profile.
        UnsupportedError: a setting that is not carried.
    """

    def __init__(self, start_step=1, stop_step=10, output_path=None, start_profile=True, profile_rank_ids=None,
                 profile_pipeline=False, profile_communication=False, profile_memory=False, config=None,
                 profiler_level=0, with_stack=False, data_simplification=True):
        super().__init__()
        if profile_communication and not start_profile:
            raise ValueError("profile_communication needs start_profile=True")
        for name, value in (("profile_pipeline", profile_pipeline), ("profile_communication", profile_communication),
                            ("config", config)):
            if value:
                raise UnsupportedError(f"ProfileMonitor({name}={value!r}) needs an Ascend cluster run and is not "
                                       "carried; leave it out")
        if not 1 <= start_step <= stop_step:
            raise ValueError(f"steps must satisfy 1 <= start_step <= stop_step, but got {start_step} and {stop_step}")
        del start_profile, profiler_level, data_simplification
        rank = get_real_rank()
        self.start_step, self.stop_step = start_step, stop_step
        self.output_path = output_path or get_output_subpath("profile", rank)
        self.active = profile_rank_ids is None or rank in profile_rank_ids
        self.options = {"profile_memory": profile_memory, "with_stack": with_stack}
        self.profiler = None

    def step_begin(self, run_context):
        """Start at start_step."""
        if self.active and run_context.original_args()["cur_step_num"] == self.start_step:
            from mindspore.profiler import ProfilerActivity, profile, tensorboard_trace_handler
            os.makedirs(self.output_path, exist_ok=True)
            self.profiler = profile(activities=[ProfilerActivity.CPU],
                                    on_trace_ready=tensorboard_trace_handler(dir_name=self.output_path), **self.options)
            self.profiler.start()

    def step_end(self, run_context):
        """Stop after stop_step."""
        if self.profiler is not None and run_context.original_args()["cur_step_num"] >= self.stop_step:
            self._stop()

    def end(self, run_context):
        """Stop when the run is shorter."""
        del run_context
        if self.profiler is not None:
            self._stop()

    def _stop(self):
        self.profiler.stop()
        self.profiler = None
        logger.info("profile written to %s", self.output_path)


class _Refused:
    """Base of callbacks that are refused by name."""

    instead = ""

    def __new__(cls, *args, **kwargs):
        raise UnsupportedError(f"{cls.__name__} is not carried: {cls.instead}")


class SummaryMonitor(_Refused):
    """Refused by name."""

    instead = ("MindSpore's summary collector needs an Ascend or GPU run; LossCurve writes loss.csv and "
               "loss_curve.png")


class ObsMonitor(_Refused):
    """Refused by name."""

    instead = "uploads to object storage are left to the platform's own tools (obsutil, s3)"


class ColdHotExpertMointor(_Refused):
    """Refused by name; spelt as in MindFormers."""

    instead = "mixture-of-experts training is not carried"
