"""What differs by backend, and nothing else: each op of the cells in the form that the backend can run.

A cell asks for its ops once, when it is built: ``self.rms_norm = kernels.get("rms_norm")``. See `kernels.select`.
"""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "get": "mindformers.kernels.select:get",
    "describe": "mindformers.kernels.select:describe",
    "form": "mindformers.kernels.select:form",
    "compute_dtype": "mindformers.kernels.select:compute_dtype",
    "explain": "mindformers.kernels.select:explain",
    "cache_dtype": "mindformers.kernels.select:cache_dtype",
    "copies_shared_parameters": "mindformers.kernels.select:copies_shared_parameters",
    "reads_whole_tables": "mindformers.kernels.select:reads_whole_tables",
    "OPS": "mindformers.kernels.select:OPS",
})
