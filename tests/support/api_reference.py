"""The API reference, one page a module, built from the docstrings. Needs pip install 'electramed_jax[docs]'.

python tests/support/api_reference.py api        # then open api/index.html
"""

from __future__ import annotations

import os
import pathlib
import sys
import warnings

PACKAGE = "electramed_jax"


def build(output: pathlib.Path, *modules: str) -> None:
    """Writes the pages of `modules`, the whole package unless told otherwise; a warning is an error."""
    os.environ["PDOC_ALLOW_EXEC"] = "1"  # packages that we import ask the system what it is
    import pdoc
    from pdoc import render

    render.configure(docformat="google")
    _help_with_named_tuples()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="pdoc")
        pdoc.pdoc(*(modules or [PACKAGE]), output_directory=output)


def _help_with_named_tuples() -> None:
    """pdoc looks for the names in a NamedTuple's annotations in `__new__`'s module, which is none: here they are
    those of the module that the class is in."""
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
