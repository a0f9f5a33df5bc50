"""Which model a folder of adapters belongs to; no MindSpore is needed to say so."""
import json
from pathlib import Path

from mindformers.tools.errors import ConfigError

CONFIG_FILE = "adapter_config.json"


def base_of_adapters(name):
    """Return the name or path of the base model of a folder of adapters alone, None for anything else.

    Raises:
        ConfigError: the folder does not name its base model.
    """
    folder = Path(name).expanduser()
    path = folder / CONFIG_FILE
    if not path.is_file() or (folder / "config.json").is_file():
        return None
    base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ConfigError(f"{path} does not name its base model: load that, then model.load_adapter({str(name)!r})")
    return base
