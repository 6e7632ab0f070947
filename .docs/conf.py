"""Sphinx settings of the documentation site. `.docs/build OUTPUT` calls Sphinx with them."""

from __future__ import annotations

import importlib
import os
import pathlib
import re
import textwrap

from sphinx.application import Sphinx

import electramed_jax
from electramed_jax import cli
from electramed_jax.config import settings_help

project = "electramed_jax"
version = release = electramed_jax.__version__
root_doc = "index"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
include_patterns = [
    "index.md",
    "commands.md",
    "settings.md",
    "docs/*",
    "github/CONTRIBUTING.md",
    "**/README.md",
    "**/CHANGELOG.md",
]
exclude_patterns = ["docs/contents.md", "docs/conf.py", "docs/screenshots.py", "docs/images"]

html_theme = "furo"
html_title = "electramed_jax"
html_show_sourcelink = False
html_copy_source = False
highlight_language = "none"
pygments_style = "friendly"
pygments_dark_style = "monokai"

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.header"]  # a README may begin with a table

default_role = "code"  # `name` in docstrings
add_module_names = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False


def setup(app: Sphinx) -> None:
    """Registers the changes of sources and docstrings, and the generated pages."""
    app.connect("builder-inited", write_generated_pages)
    app.connect("source-read", change_links)
    app.connect("autodoc-process-docstring", mark_code_blocks, priority=400)  # before napoleon


def write_generated_pages(app: Sphinx) -> None:
    """Writes the pages of the commands and of the settings: what `--help` prints."""
    os.environ["COLUMNS"] = "100"
    parts = [
        "# Commands",
        "The output of `electramed help COMMAND`. Training commands also take [settings](settings.md).",
    ]
    for name, summary in cli.COMMANDS.items():
        command = importlib.import_module(f"electramed_jax.commands.{cli.MODULES.get(name, name)}")
        parts += [
            f"## {name}",
            f"{summary[0].upper()}{summary[1:]}.",
            _code(cli.make_parser(name, command).format_help()),
        ]
    pathlib.Path(app.srcdir, "commands.md").write_text("\n\n".join(parts), encoding="utf-8")

    parts = [
        "# Settings",
        "Each is changed by `--config.NAME=VALUE`. A recipe, `--config=RECIPE`, may have other values.",
    ]
    for command_name, title in (("pretrain", "Pre-training"), ("finetune", "Fine-tuning")):
        parts += [f"## {title}", _code(settings_help.settings_help(command_name, [], all_settings=True))]
    pathlib.Path(app.srcdir, "settings.md").write_text("\n\n".join(parts), encoding="utf-8")


def _code(text: str) -> str:
    return textwrap.indent(text, "    ")


def change_links(app: Sphinx, name: str, source: list[str]) -> None:
    """Changes links to dot folders to their names on the site, and links to folders of code to their reference."""

    def reference(match: re.Match[str]) -> str:
        if match[2] == "examples":  # they run on import and have no reference
            return f"`{match[1]}/`"
        return f'<a href="{"../" * name.count("/")}code/electramed_jax/{match[2]}.html"><code>{match[1]}/</code></a>'

    source[0] = re.sub(r"\]\(((?:\.\./)*)\.(docs|github)/", r"](\1\2/", source[0])
    if name == "electramed_jax/README":
        source[0] = re.sub(r"\[`([\w/]+)/`\]\(([\w/]+)\)", reference, source[0])


def mark_code_blocks(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Makes an indented block after a paragraph a code block, as in Markdown."""
    for index in range(len(lines) - 1, 0, -1):
        if lines[index].startswith("    ") and not lines[index - 1].strip() and not _is_in_block(lines[: index - 1]):
            lines[index:index] = [".. code-block:: python", ""]


def _is_in_block(before: list[str]) -> bool:
    """Returns whether the last line with text is indented, so that a block has begun already."""
    return next((line for line in reversed(before) if line.strip()), "").startswith(" ")
