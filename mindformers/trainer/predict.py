"""Predict: prompts in, texts out: streamed on the console and written to a result file."""
import os
from pathlib import Path

from mindformers.tools.errors import ConfigError
from mindformers.tools.logger import logger
from mindformers.tools.utils import atomic_write


def read_prompts(input_data):
    """Return the prompts of `input_data` as a list of strings.

    Args:
        input_data (str | list[str] | dict): one prompt, several, or the path of an existing text file with one
            prompt per line (empty lines are left out; a literal ``\\n`` in a line stands for a line break).

    Raises:
        ConfigError: nothing to predict.
        TypeError: something else.
    """
    if isinstance(input_data, (list, tuple)):
        prompts = [prompt for item in input_data for prompt in read_prompts(item)]
    elif isinstance(input_data, os.PathLike) or (isinstance(input_data, str) and _is_file(input_data)):
        lines = Path(input_data).read_text(encoding="utf-8").splitlines()
        prompts = [line.replace("\\n", "\n") for line in lines if line.strip()]
        if not prompts:
            raise ConfigError(f"the prompt file {str(input_data)!r} has no line with text")
    elif isinstance(input_data, str):
        prompts = [input_data]
    elif input_data is None:
        prompts = []
    else:
        raise TypeError(f"input_data must be a string, a list of strings or a file, got {type(input_data).__name__}")
    if not prompts:
        raise ConfigError("nothing to predict: give --predict_data \"text\" (or input_data)")
    return prompts


def _is_file(text):
    """Whether a prompt is the name of an existing file (too long a name is none)."""
    try:
        return "\n" not in text and os.path.isfile(text)
    except (OSError, ValueError):
        return False


def write_results(results, path):
    """Write one ``str(result)`` per line to the text file `path` (UTF-8), atomically."""
    with atomic_write(path) as temporary:
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(f"{result}\n" for result in results)
    logger.info("output result is saved at: %s", path)
