"""The page: a form, the result of the last input, and the upload of a file. It works without a script."""

from __future__ import annotations

from collections.abc import Mapping

from electramed_jax.common.page.markup import Markup, text
from electramed_jax.finetune.output import view
from electramed_jax.serve import words_view
from electramed_jax.serve.services import Field, Service
from electramed_jax.serve.words_view import FORM

TITLES = {
    "entities": "Entities in a text",
    "labels": "Labels of a text",
    "answers": "Answers to a question",
    "words": "Replaced and masked words",
}
CSS = (
    view.CSS
    + """
label{display:block;font-weight:600;margin:10px 0 4px}
textarea,select,input[type=file]{width:100%;font:inherit;color:var(--ink);background:var(--page);
 border:1px solid var(--muted);border-radius:6px;padding:8px}
textarea{resize:vertical}
.go{font:inherit;font-weight:600;margin-top:12px;padding:8px 18px;border:0;border-radius:6px;background:var(--run0);
 color:var(--card);cursor:pointer}
:focus-visible{outline:3px solid var(--run0);outline-offset:2px}
.error{border-left:4px solid var(--bad)}
.files{display:grid;gap:0 14px;grid-template-columns:repeat(auto-fit,minmax(min(100%,240px),1fr))}
a{color:var(--run0)}
"""
    + words_view.CSS
)
POLICY = f"{view.policy(CSS)}; frame-ancestors 'none'"


def render(
    service: Service, values: Mapping[str, str], result: Markup | None = None, error: str = "", *, max_text: int
) -> str:
    """Returns the page.

    Args:
      values: contents of the text fields.
      result: HTML of the prediction for them; None: nothing was predicted.
      error: why nothing was predicted.
      max_text: characters that a request may have.
    """
    parts = [
        view.page_start(TITLES[service.kind], CSS),
        view.note(f"Model: {service.name}. The text stays on the machine that runs electramed serve."),
        _form(service, values, max_text, is_new=result is None and not error),
    ]
    if error:
        parts.append(Markup(f'<section class="card error" role="alert" id="result"><p>{text(error)}</p></section>'))
    if result is not None:
        parts.append(Markup(f'<section class="card" id="result"><h2>Result</h2>{result}</section>'))
    if service.formats:
        parts.append(_files_form(service))
    parts.append(_for_programs(service))
    parts.append(view.page_end())
    return "".join(parts)


def _form(service: Service, values: Mapping[str, str], max_text: int, *, is_new: bool) -> Markup:
    fields = "".join(
        _field(field, values.get(field.name, ""), max_text, is_focused=is_new and not number)
        for number, field in enumerate(service.fields)
    )
    return Markup(
        f'<form class="card" id="{FORM}" method="post" action="/#result">{fields}'
        '<button class="go">Predict</button></form>'
    )


def _field(field: Field, value: str, max_text: int, *, is_focused: bool) -> str:
    required = " required" if field.required else ""
    focus = " autofocus" if is_focused else ""
    # A browser drops a line break after the opening tag: the text may begin with one of its own.
    return (
        f'<label for="{field.name}">{text(field.label)}</label>'
        f'<textarea id="{field.name}" name="{field.name}" rows="{field.rows}" maxlength="{max_text}" '
        f'placeholder="{text(field.example)}"{required}{focus}>\n{text(value)}</textarea>'
    )


def _files_form(service: Service) -> Markup:
    options = "".join(f"<option>{text(name)}</option>" for name in service.formats)
    return Markup(
        '<form class="card" method="post" action="/api/files" enctype="multipart/form-data"><h2>A whole file</h2>'
        '<div class="files"><div><label for="file">File</label><input type="file" id="file" name="file" required></div>'
        f'<div><label for="format">Write as</label><select id="format" name="format">{options}</select></div></div>'
        '<button class="go">Upload and download</button></form>'
    )


def _for_programs(service: Service) -> Markup:
    fields = ", ".join(f'"{field.name}": "…"' for field in service.fields)
    example = f'{{"inputs": [{{{fields}}}]}}'
    return Markup(
        '<section class="card"><h2>From a program</h2><p class="note">JSON, described in '
        f'<a href="/openapi.json">/openapi.json</a>.</p><pre>POST /api/predict\n{text(example)}</pre></section>'
    )
