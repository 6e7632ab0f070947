"""Builds the reference of the code from the docstrings, one page per module; `.docs/build` makes it a part of the site.

python tests/support/api_reference.py code        # then open code/index.html; needs pip install 'electramed_jax[docs]'
"""

from __future__ import annotations

import importlib
import os
import pathlib
import sys
import warnings

PACKAGE = "electramed_jax"


def build(output: pathlib.Path, *modules: str) -> None:
    """Writes the pages of `modules` (default: every module). A warning of pdoc is an error."""
    os.environ["PDOC_ALLOW_EXEC"] = "1"  # imported packages run programs to detect the platform
    import pdoc
    from pdoc import render

    render.configure(docformat="google", show_source=False)
    _fix_named_tuple_annotations()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="pdoc")
        pdoc.pdoc(*(modules or list_modules()), output_directory=output)


def list_modules() -> list[str]:
    """Returns the arguments of pdoc for all modules, also for those that `__all__` of their package omits.

    The examples and `__main__` are left out, because they run on import.
    """
    from pdoc import extract

    specs = [PACKAGE, f"!{PACKAGE}.examples"]
    found = set(extract.walk_specs(specs))
    folder = pathlib.Path(importlib.import_module(PACKAGE).__path__[0])
    for path in sorted(folder.rglob("*.py")):  # a package before its modules
        name = ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__")
        if name not in found and not name.startswith(f"{PACKAGE}.examples") and path.stem != "__main__":
            specs.append(name)
            found.update(extract.walk_specs([name]))
    return specs


def _fix_named_tuple_annotations() -> None:
    """Makes pdoc evaluate the annotations of a NamedTuple in the module of the class.

    pdoc looks their names up in the module of `__new__`, which a NamedTuple does not have.
    """
    from pdoc import doc, doc_types

    evaluate = doc_types.safe_eval_type

    def in_its_module(annotation, globalns, localns, module, fullname):
        if not globalns and fullname.startswith(PACKAGE) and fullname.endswith(".__init__"):
            module = sys.modules[fullname.rsplit(".", 2)[0]]
            globalns = localns = vars(module)
        return evaluate(annotation, globalns, localns, module, fullname)

    doc.safe_eval_type = in_its_module


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    build(pathlib.Path(sys.argv[1]))
