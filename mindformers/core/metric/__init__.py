"""Metrics."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    **{name: f"mindformers.core.metric.metric:{name}"
       for name in ("ADGENMetric", "EmF1Metric", "EntityScore", "PerplexityMetric", "PromptAccMetric", "SQuADMetric")},
    "build_metric": "mindformers.core.metric.build_metric:build_metric",
})
