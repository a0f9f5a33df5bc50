"""Graph mode on CPU, whatever ran before."""
from tests.graph_mode import graph_mode  # noqa: F401
