"""Which fields of a config are read: a view of the config writes down every field that it gives.

Models, data sets and the optimizer are built from such a view. So a field that the chosen ones do
not read is known without a list of them, for modules from outside too. A check that reads a field
counts as a use of it: code reads only what the chosen variant needs.
"""

from typing import Any

from ml_collections import ConfigDict


class View(ConfigDict):
    """A settled config that adds a field's name to `seen` when it is read: "model.beta.end"."""

    def __init__(self, config: Any, seen: set[str], prefix: str = ""):
        """Shares the values of `config`; nothing is read yet."""
        super().__init__()
        self.__dict__.update(_seen=seen, _prefix=prefix, _given=config)
        for name in config:
            value = config[name]
            if isinstance(value, ConfigDict):
                value = View(value, seen, f"{prefix}{name}.")
            self._fields[name] = value
        self.lock()

    def __getitem__(self, key: str) -> Any:
        """Returns a value, and writes its name down; a section writes down its own fields."""
        value = super().__getitem__(key)
        if "." not in key and not isinstance(value, ConfigDict):
            self._seen.add(f"{self._prefix}{key}")
        return value

    def copy_and_resolve_references(self, visit_map: Any = None) -> ConfigDict:
        """Returns an ordinary copy; what it is for cannot be followed, so all counts as read."""
        self.to_dict()
        return self._given.copy_and_resolve_references(visit_map)

    def __deepcopy__(self, memo: Any) -> ConfigDict:
        """Returns an ordinary copy, as `copy_and_resolve_references` does."""
        return self.copy_and_resolve_references()
