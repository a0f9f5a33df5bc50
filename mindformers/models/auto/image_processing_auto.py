"""AutoImageProcessor: image processors that users register; none is built in."""
import os

from mindformers.models import tokenization_files as files
from mindformers.models.auto.lazy_mapping import LazyMapping
from mindformers.models.hub_sources import is_remote
from mindformers.models.processing_utils import PREPROCESSOR_FILE
from mindformers.tools.errors import UnsupportedError
from mindformers.tools.logger import logger

IMAGE_PROCESSOR_MAPPING_NAMES = {}
# configuration class name -> image processor class
IMAGE_PROCESSOR_MAPPING = LazyMapping("IMAGE_PROCESSOR_MAPPING", {})


def image_processor_class_from_name(class_name):
    """Return the registered image processor class of a name, or None."""
    return next((one for one in IMAGE_PROCESSOR_MAPPING.values() if one.__name__ == class_name), None)


class AutoImageProcessor:
    """Not constructible: `AutoImageProcessor.from_pretrained` chooses among the registered classes."""

    def __init__(self):
        raise EnvironmentError("AutoImageProcessor is not constructible; use "
                               "AutoImageProcessor.from_pretrained(folder)")

    @classmethod
    def from_pretrained(cls, yaml_name_or_path=None, **kwargs):
        """Build the image processor that preprocessor_config.json of a folder names.

        Raises:
            UnsupportedError: the class is not registered (none is built in).
            FileNotFoundError: the folder has no preprocessor_config.json.
        """
        name = kwargs.pop("pretrained_model_name_or_path", None) if yaml_name_or_path is None else yaml_name_or_path
        source = files.locate(name, kwargs.get("subfolder") or "", kwargs, "processor")
        path = source.find(PREPROCESSOR_FILE)
        if path is None:
            raise FileNotFoundError(f"{os.fspath(name)} has no {PREPROCESSOR_FILE}, which names the image processor")
        class_name = files.read_json(path).get("image_processor_type")
        kind = image_processor_class_from_name(class_name)
        if kind is None:
            raise UnsupportedError(f"image processor {class_name!r} is not carried here; register your own with "
                                   f"AutoImageProcessor.register(config_class, image_processor_class)")
        return kind.from_pretrained(str(source.folder) if is_remote(name) else name, **kwargs)

    @staticmethod
    def register(config_class, image_processor_class, exist_ok=False):
        """Add the image processor of a configuration class; one that is there already needs `exist_ok`."""
        IMAGE_PROCESSOR_MAPPING.register(config_class.__name__, image_processor_class, exist_ok)

    @classmethod
    def get_support_list(cls):
        """Return ``{}``: no name of configs/ has an image processor."""
        return dict(IMAGE_PROCESSOR_MAPPING_NAMES)

    @classmethod
    def show_support_list(cls):
        """Log `get_support_list`."""
        logger.info("support list of AutoImageProcessor is: %s", cls.get_support_list())
