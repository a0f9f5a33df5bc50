"""MindFormers' old place of the auto classes; they live in `mindformers.models.auto`."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    name: f"mindformers.models.auto:{name}" for name in ("AutoConfig", "AutoModel", "AutoProcessor", "AutoTokenizer")
})
