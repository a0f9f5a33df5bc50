"""The context of a job: device, graph or eager mode, processes."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    name: f"mindformers.core.context.build_context:{name}"
    for name in ("build_context", "get_context", "init_context", "set_context")
})
