"""LossCurve: the course of a run as loss.csv, and as a picture."""
import csv
import importlib.util
import os
import time

from mindspore.train import Callback

from mindformers.core.callback.step_values import step_values
from mindformers.tools.logger import logger
from mindformers.tools.utils import atomic_write, get_output_root_path, is_main_rank

COLUMNS = ("step", "loss", "lr", "global_norm", "overflow", "seconds")


class LossCurve(Callback):
    """Append each step to ``<output_dir>/loss.csv`` and draw ``<output_dir>/loss_curve.png`` from it.

    A resumed run continues the file: rows after the step it resumes from are dropped. Only the first rank writes.
    The picture needs matplotlib; without it only the table is written (said once).

    Args:
        output_dir (str): Default: None, the output folder of the run.
        picture_steps (int): draw every that many steps, and at the end. Default: 200.

    Raises:
        ValueError: picture_steps < 1.
    """

    def __init__(self, output_dir=None, picture_steps=200):
        super().__init__()
        if picture_steps < 1:
            raise ValueError(f"picture_steps must be at least 1, but got {picture_steps}")
        self.output_dir = output_dir
        self.picture_steps = picture_steps
        self._table = None
        self._writer = None
        self._start = time.time()

    def begin(self, run_context):
        """Open the table; keep the rows of the run that is resumed."""
        if not is_main_rank():
            return
        done = run_context.original_args().get("cur_step_num") or 0
        self.output_dir = self.output_dir or get_output_root_path()
        os.makedirs(self.output_dir, exist_ok=True)
        kept = [row for row in read_curve(self.csv_path) if int(row["step"]) <= done] if done else []
        with atomic_write(self.csv_path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)
        self._table = open(self.csv_path, "a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._table)

    @property
    def csv_path(self):
        """Path of the table."""
        return os.path.join(self.output_dir, "loss.csv")

    @property
    def picture_path(self):
        """Path of the picture."""
        return os.path.join(self.output_dir, "loss_curve.png")

    def step_begin(self, run_context):
        """Take the time."""
        del run_context
        self._start = time.time()

    def step_end(self, run_context):
        """Write one row."""
        if self._table is None:
            return
        params = run_context.original_args()
        values = step_values(params["net_outputs"])
        step = params["cur_step_num"]
        self._writer.writerow([step, values.loss, values.lr, values.global_norm, int(bool(values.overflow)),
                               f"{time.time() - self._start:.4f}"])
        self._table.flush()
        if step % self.picture_steps == 0:
            self._draw()

    def end(self, run_context):
        """Close the table and draw it."""
        del run_context
        if self._table is not None:
            self._table.close()
            self._table = None
            self._draw()

    def _draw(self):
        if importlib.util.find_spec("matplotlib") is None:
            if not getattr(self, "_said", False):
                self._said = True
                logger.warning("matplotlib is not installed: %s is written, the picture is not "
                               "(pip install matplotlib)", self.csv_path)
            return
        draw_curve(read_curve(self.csv_path), self.picture_path)


def read_curve(path):
    """Return the rows of a loss.csv as dicts of strings; [] when there is no such file."""
    if not os.path.isfile(path):
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw_curve(rows, path):
    """Draw loss (left axis: each step and a running mean) and learning rate (right axis) over steps into a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [int(row["step"]) for row in rows]
    losses = [float(row["loss"]) for row in rows]
    means, mean = [], None
    for loss in losses:
        mean = loss if mean is None else mean + 0.05 * (loss - mean)
        means.append(mean)
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(steps, losses, color="tab:blue", alpha=0.3, linewidth=0.8, label="loss")
    axes.plot(steps, means, color="tab:blue", linewidth=1.5, label="loss, running mean")
    axes.set_xlabel("step")
    axes.set_ylabel("loss per token (nats)")
    axes.grid(alpha=0.3)
    if rows and all(row["lr"] for row in rows):
        rate = axes.twinx()
        rate.plot(steps, [float(row["lr"]) for row in rows], color="tab:orange", linewidth=0.8, label="learning rate")
        rate.set_ylabel("learning rate")
    figure.legend(loc="upper right", bbox_to_anchor=(0.9, 0.95))
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")
