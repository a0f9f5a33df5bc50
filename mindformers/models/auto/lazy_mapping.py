"""Mappings from a model type or configuration class to a class that is imported on first use."""
from mindformers.tools.errors import did_you_mean
from mindformers.tools.register.register import load_object


class LazyMapping:
    """``key -> class``, built from ``key -> "package.module:Class"`` plus what users register.

    Args:
        name (str): what the mapping is called in messages.
        table (dict[str, str | None]): built-in entries.
    """

    def __init__(self, name, table):
        self.name, self._table, self._extra = name, dict(table), {}

    def __getitem__(self, key):
        if key in self._extra:
            return self._extra[key]
        if key not in self._table:
            raise KeyError(f"{self.name} has no {key!r}.{did_you_mean(key, self.keys())}")
        return load_object(self._table[key])

    def get(self, key, default=None):
        """The class of `key`, or `default`."""
        return self[key] if key in self else default

    def __contains__(self, key):
        return key in self._extra or key in self._table

    def keys(self):
        """Built-in and registered keys."""
        return [*self._table, *(key for key in self._extra if key not in self._table)]

    def values(self):
        """The classes; imports them all."""
        return [self[key] for key in self.keys()]

    def items(self):
        """(key, class) pairs; imports them all."""
        return [(key, self[key]) for key in self.keys()]

    def __iter__(self):
        return iter(self.keys())

    def __len__(self):
        return len(self.keys())

    def register(self, key, value, exist_ok=False):
        """Add an entry.

        Raises:
            ValueError: `key` is there already and `exist_ok` is False.
        """
        if key in self and not exist_ok:
            raise ValueError(f"{key!r} is already used by {self.name}; pass exist_ok=True to replace it")
        self._extra[key] = value
