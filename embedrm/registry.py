"""Registries filled by folder: a new head, router, encoder or data set is one new file.

A registry belongs to one sub-package. The first look-up imports every module of that sub-package (those whose names
begin with an underscore and ``base`` are skipped), and each module registers what it defines with the decorator. There
is no second list to edit.
"""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from embedrm.errors import InvalidInputError, unknown_name

T = TypeVar("T", bound=type)

# One for all registries: modules of one may look something up in another while they are imported.
_discovering = threading.RLock()


class Registry:
    """Named classes of one kind, discovered in one sub-package.

    Parameters
    ----------
    kind : str
        The noun used in messages: "head", "router", "encoder".
    package : str
        The sub-package whose modules register themselves, such as ``"embedrm.heads"``.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._classes: dict[str, type] = {}
        self._begun = False
        self._discovered = False

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator: make the class known under ``name``; two classes under one name are a bug and raise."""

        def decorate(cls: T) -> T:
            present = self._classes.get(name)
            if present is not None and present.__qualname__ != cls.__qualname__:
                raise RuntimeError(f"{self.kind} {name!r} is registered twice: {present!r} and {cls!r}")
            self._classes[name] = cls
            cls.registered_name = name  # type: ignore[attr-defined]
            return cls

        return decorate

    def discover(self) -> None:
        """Import every public module of the sub-package once; other threads wait until all of them are there."""
        if self._discovered:
            return
        with _discovering:
            # a module that looks something up while it is imported must not start again
            if self._begun:
                return
            self._begun = True
            try:
                package = importlib.import_module(self.package)
                for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
                    if not module.startswith("_") and module != "base":
                        importlib.import_module(f"{self.package}.{module}")
            except BaseException:
                # a module that fails must fail at every look-up, not leave a registry that lacks it in silence
                self._begun = False
                raise
            self._discovered = True

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self.discover()
        return sorted(self._classes)

    def get(self, name: str) -> type:
        """Return the class registered as ``name``; an unknown name raises InvalidInputError with the nearest one."""
        self.discover()
        try:
            return self._classes[name]
        except KeyError:
            raise unknown_name(self.kind, name, self.names()) from None

    def make(self, given: str | Mapping[str, Any]) -> Any:
        """Return an object of a registered data class: by its name, or by ``{"name": NAME, FIELD: VALUE}``."""
        own = dict(given) if isinstance(given, Mapping) else {"name": given}
        name = own.pop("name", None)
        if not isinstance(name, str):
            raise InvalidInputError(
                f"a {self.kind} is given by its name, or a mapping with the key 'name'; got {type(given).__name__}. "
                f"Known: {', '.join(self.names())}."
            )
        cls = self.get(name)
        known = [field.name for field in fields(cls)]
        for key in own:
            if key not in known:
                raise unknown_name(f"parameter of the {self.kind} {name!r}", key, known)
        return cls(**own)

    def name_of(self, cls: type) -> str | None:
        """Return the name under which exactly this class is registered, or None."""
        self.discover()
        return next((name for name, known in self._classes.items() if known is cls), None)

    def __contains__(self, name: object) -> bool:
        self.discover()
        return name in self._classes

    def __iter__(self) -> Iterator[tuple[str, type]]:
        self.discover()
        return iter(sorted(self._classes.items()))
