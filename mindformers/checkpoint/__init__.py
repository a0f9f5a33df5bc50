"""Checkpoints: bytes on disk <-> names <-> parameters of a cell.

`formats` reads files and folders lazily, `names` maps Hugging Face names and ours both ways, `load` fills a cell
strictly, `save` writes weights, `train_state` and `resume` keep what training needs to go on.
"""
from mindformers.tools.utils import lazy_exports

_ROOM = "mindformers.checkpoint"

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "WeightSource": f"{_ROOM}.source:WeightSource",
    "DictSource": f"{_ROOM}.source:DictSource",
    "CellSource": f"{_ROOM}.source:CellSource",
    "open_weights": f"{_ROOM}.formats:open_weights",
    "WeightMap": f"{_ROOM}.names:WeightMap",
    "LoadReport": f"{_ROOM}.load:LoadReport",
    "load": f"{_ROOM}.load:load",
    "save_weights": f"{_ROOM}.save:save_weights",
    "save_train_state": f"{_ROOM}.train_state:save_train_state",
    "load_train_state": f"{_ROOM}.train_state:load_train_state",
    "find_resume": f"{_ROOM}.resume:find_resume",
    "ResumePoint": f"{_ROOM}.resume:ResumePoint",
})
