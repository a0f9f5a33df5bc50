"""Reading the golden files of tests/reference/glm: folders, arrays, and the parameter names written out anew."""
from functools import lru_cache
from pathlib import Path

import numpy as np

GLM = Path(__file__).resolve().parent / "glm"
CASES = sorted(folder.name for folder in GLM.iterdir() if folder.is_dir())


def folder(case):
    """Path of a case as a string: config.json and model.safetensors."""
    return str(GLM / case)


@lru_cache(maxsize=None)
def golden(case):
    """Arrays of a case; see make_glm_goldens.py for their names and shapes."""
    with np.load(GLM / case / "golden.npz") as file:
        return dict(file)


def mindformers_name(name):
    """MindFormers' name of a published parameter: the specification, independent of the suite's own table."""
    return {"transformer.embedding.word_embeddings.weight": "transformer.embedding.embedding_weight",
            "transformer.prefix_encoder.embedding.weight": "transformer.prefix_encoder.embedding.embedding_weight",
            }.get(name, name)
