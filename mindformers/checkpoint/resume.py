"""Where a run goes on: the newest point that every rank has saved completely."""
import re
from dataclasses import dataclass
from pathlib import Path

from mindformers.checkpoint.formats import READERS, read_json
from mindformers.checkpoint.train_state import META

NAME = re.compile(r"(?P<prefix>.+)_rank_(?P<rank>\d+)-(?P<epoch>\d+)_(?P<step>\d+)\.(ckpt|safetensors)")


@dataclass(frozen=True)
class ResumePoint:
    """What to resume from.

    Attributes:
        paths (list[Path]): the checkpoint of each rank.
        epoch, step (int | None): what the file names say; None when a name does not say it.
    """

    paths: list
    epoch: int = None
    step: int = None


def find_resume(load_checkpoint, resume_training=True, rank_size=1):
    """Return the ResumePoint that `load_checkpoint` and `resume_training` mean.

    Of a folder with `rank_N` folders: the latest (epoch, step) that all ranks have and that no rank's meta.json is
    behind. Without meta.json files: the newest file, which must be the same point on all ranks.

    Args:
        load_checkpoint (str | Path): the folder with rank_N folders, a run's folder with `checkpoint/` in it, or one
            checkpoint file that all ranks take.
        resume_training (bool | str): True, or the name of the file of rank 0 to resume from.
        rank_size (int): number of processes of the run that goes on. Default: 1.

    Raises:
        FileNotFoundError: no such folder, file or rank. ValueError: no point that all ranks have, or wrong arguments.
    """
    if not load_checkpoint:
        raise ValueError("resume_training needs load_checkpoint: the folder with the rank_N folders, or a checkpoint "
                         "file")
    if resume_training is not True and not (isinstance(resume_training, str) and resume_training):
        raise ValueError(f"resume_training must be True or the name of a checkpoint file, but is {resume_training!r}")
    path = Path(load_checkpoint).expanduser()
    if path.is_file():
        return _file_point(path, resume_training, rank_size)
    if not path.is_dir():
        raise FileNotFoundError(f"load_checkpoint {path} does not exist")
    if not (path / "rank_0").is_dir() and (path / "checkpoint" / "rank_0").is_dir():
        path = path / "checkpoint"
    folders = [path / f"rank_{rank}" for rank in range(rank_size)]
    absent = [folder.name for folder in folders if not folder.is_dir()]
    if absent:
        raise FileNotFoundError(f"{path} has no {', '.join(absent)}, but the run has {rank_size} processes: resume "
                                "with as many as saved it, or give the checkpoint file of one rank to all")
    if isinstance(resume_training, str):
        return _named_point(folders, resume_training)
    return _latest_point(path, folders)


def _file_point(path, resume_training, rank_size):
    if isinstance(resume_training, str) and resume_training != path.name:
        raise ValueError(f"load_checkpoint is the file {path.name}, but resume_training names {resume_training!r}: "
                         "give the folder, or set resume_training to True")
    return _point([path] * rank_size)


def _point(paths):
    match = NAME.fullmatch(paths[0].name)
    return ResumePoint(paths, int(match["epoch"]), int(match["step"])) if match else ResumePoint(paths)


def _named_point(folders, name):
    if Path(name).name != name:
        raise ValueError(f"resume_training {name!r} must be a file name inside the rank_N folders, not a path")
    paths = [folder / name.replace("_rank_0-", f"_rank_{rank}-") for rank, folder in enumerate(folders)]
    absent = [str(path) for path in paths if not path.is_file()]
    if absent:
        there = ", ".join(sorted(file.name for file in _checkpoints(folders[0]).values())) or "none"
        raise FileNotFoundError(f"resume_training names {absent[0]}, which does not exist; checkpoints of rank 0: "
                                f"{there}")
    return _point(paths)


def _checkpoints(folder):
    """Return {(epoch, step): newest file of that point} of a rank's folder."""
    found = {}
    files = (path for path in folder.iterdir() if path.is_file() and path.suffix in READERS and path.stat().st_size)
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns):
        match = NAME.fullmatch(path.name)
        if match and not path.name.startswith("."):
            found[int(match["epoch"]), int(match["step"])] = path
    return found


def _latest_point(path, folders):
    files = [_checkpoints(folder) for folder in folders]
    empty = [folder.name for folder, found in zip(folders, files) if not found]
    if empty:
        raise FileNotFoundError(f"{path}: {', '.join(empty)} holds no checkpoint named "
                                "<prefix>_rank_N-<epoch>_<step>.ckpt")
    records = [_record(folder) for folder in folders]
    if not any(records):
        newest = {max(found, key=lambda point, found=found: found[point].stat().st_mtime_ns) for found in files}
        if len(newest) > 1:
            raise ValueError(f"{path}: without {META} the newest checkpoint of all ranks must be the same, but they "
                             f"are {sorted(newest)} (epoch, step): name one with resume_training")
        return _point([found[next(iter(newest))] for found in files])
    if not all(records):
        odd = ", ".join(folder.name for folder, record in zip(folders, records) if not record)
        raise ValueError(f"{path}: {odd} has no {META} while other ranks have: name the file with resume_training")
    limit = min(record[:2] for record in records)
    common = [point for point in set.intersection(*map(set, files)) if point <= limit]
    if not common:
        raise ValueError(f"{path}: the {len(folders)} ranks have no checkpoint in common up to epoch {limit[0]} step "
                         f"{limit[1]}")
    best = max(common)
    return _point([folder / record[2] if record[:2] == best else found[best]
                   for folder, record, found in zip(folders, records, files)])


def _record(folder):
    """Return (epoch, step, file name) of a rank's meta.json, or None without one."""
    path = folder / META
    if not path.is_file():
        return None
    content = read_json(path, "the record of the last checkpoint")
    record = (content.get("last_epoch"), content.get("last_step"), content.get("last_ckpt_file"))
    if not all(isinstance(value, int) for value in record[:2]) or not isinstance(record[2], str):
        raise ValueError(f"{path} is damaged: it must hold last_epoch, last_step and last_ckpt_file; delete it to "
                         "resume from the newest file")
    if Path(record[2]).name != record[2]:
        raise ValueError(f"{path} names {record[2]!r}: only files in its own folder may be named")
    return record
