"""Everything that executes one run: plan, preparation, the loop, evaluation, checkpoints, the record.

The package can be called: ``benchmark.run(...)`` is `benchmark.results.run`, whether or not one of its modules has been
imported, which makes the package an attribute of `benchmark`.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """A package that passes calls on."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return importlib.import_module("benchmark.results").run(*args, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        """For ``help`` and for editors."""
        return inspect.signature(importlib.import_module("benchmark.results").run)


sys.modules[__name__].__class__ = _Callable
