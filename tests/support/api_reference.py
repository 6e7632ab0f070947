"""Builds the API reference from the docstrings, one page per module. Needs pip install 'electramed_jax[docs]'.

python tests/support/api_reference.py api        # then open api/index.html
"""

from __future__ import annotations

import os
import pathlib
import sys
import warnings

PACKAGE = "electramed_jax"


def build(output: pathlib.Path, *modules: str) -> None:
    """Writes the pages of `modules` (default: the package without examples, which run on import). A warning of pdoc is an error."""
    os.environ["PDOC_ALLOW_EXEC"] = "1"  # imported packages run programs to detect the platform
    import pdoc
    from pdoc import render

    render.configure(docformat="google")
    _fix_named_tuple_annotations()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="pdoc")
        pdoc.pdoc(*(modules or [PACKAGE, f"!{PACKAGE}.examples"]), output_directory=output)


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
