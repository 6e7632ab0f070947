"""Colours and style sheet of the page. Each colour is a CSS variable with a light and a dark value."""

from __future__ import annotations

# name: (light, dark)
COLOURS = {
    "ink": ("#1b1f24", "#e7eaee"),
    "muted": ("#656d77", "#99a2ad"),
    "grid": ("#e4e7eb", "#2c323a"),
    "card": ("#ffffff", "#1a1e24"),
    "page": ("#f5f6f8", "#111418"),
    "band": ("#dfe9dc", "#25382a"),
    "good": ("#1f7a3d", "#58c27d"),
    "bad": ("#b42318", "#ff8a7a"),
    "warn": ("#8a5a00", "#f0b440"),
    "run0": ("#2463c9", "#6ea8ff"),
    "run1": ("#d1611b", "#ff9d5c"),
    "run2": ("#0f7f78", "#4fd1c5"),
    "run3": ("#9c3a97", "#e08be0"),
    "run4": ("#6b6f12", "#c9cf4a"),
    "run5": ("#84443a", "#d99a8c"),
}
RUN_COLOURS = [name for name in COLOURS if name.startswith("run")]


def light(name: str) -> str:
    """Returns the light value of a colour."""
    return COLOURS[name][0]


def run_colour(number: int) -> str:
    """Returns the name of the colour of a run; the seventh run has the colour of the first."""
    return RUN_COLOURS[number % len(RUN_COLOURS)]


def _variables(index: int) -> str:
    return "".join(f"--{name}:{values[index]};" for name, values in COLOURS.items())


CSS = (
    f":root{{color-scheme:light dark;{_variables(0)}}}"
    f"@media (prefers-color-scheme:dark){{:root:not([data-paper]){{{_variables(1)}}}}}"
    """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
 "Helvetica Neue",sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
main{max-width:1240px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:26px;line-height:1.2;margin:0 0 4px}
h2{font-size:19px;margin:40px 0 4px}
h3{font-size:15px;margin:0 0 8px}
p.note,figcaption,.note{color:var(--muted);font-size:13px;margin:0 0 12px;max-width:90ch}
.grid{display:grid;gap:14px;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr))}
.card{background:var(--card);border:1px solid var(--grid);border-radius:10px;padding:14px 16px;min-width:0}
.wide{grid-column:1/-1}
@media (min-width:760px){.two{grid-column:span 2}}
.dot{display:inline-block;width:10px;height:10px;border-radius:50%;margin-right:7px}
.bar{height:6px;border-radius:3px;background:var(--grid);margin:8px 0 12px;overflow:hidden}
.bar>i{display:block;height:100%}
dl{margin:0;display:grid;gap:3px}
dl>div{display:flex;justify-content:space-between;gap:14px}
dt{color:var(--muted)}dd{margin:0;text-align:right}
.wide dl{grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:14px}
.wide dl>div{display:block}.wide dt{font-size:13px}.wide dd{text-align:left;font-size:17px;font-weight:600}
figure{margin:0}
.curve figcaption{color:var(--ink);font-weight:600;margin:0 0 4px;display:flex;justify-content:space-between;gap:8px}
.save{white-space:nowrap}
.save button{font:11px system-ui,sans-serif;color:var(--muted);background:none;border:1px solid var(--grid);
 border-radius:4px;padding:2px 6px;margin-left:4px;cursor:pointer}
.spoken{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);margin:0}
#curve-controls{margin:14px 0}
.controls{align-items:center}
.controls label{display:inline-flex;align-items:center;gap:6px;color:var(--ink)}
.controls [type=number]{width:6.5em}
.controls select,.controls [type=search],.controls [type=number]{font:inherit;color:inherit;background:var(--page);
 border:1px solid var(--muted);border-radius:4px;max-width:100%}
.scroll{overflow-x:auto}
section>.card+.card{margin-top:14px}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:5px 10px 5px 0;text-align:left;border-bottom:1px solid var(--grid);vertical-align:top}
.scroll th,.scroll td{overflow-wrap:normal}
.scroll td:not(.n){min-width:7em}
td.n,th.n{text-align:right;white-space:nowrap}
th{color:var(--muted);font-weight:500;overflow-wrap:normal}
tr:last-child>td{border-bottom:0}
.alert{border-left:4px solid var(--warn)}
.alert p{margin:2px 0}
.ok{border-left:4px solid var(--good)}
.text{line-height:2.1;font-size:15px;margin:18px 0 2px}
.t{border-radius:3px;padding:1px 0}
.swap{border-radius:4px;padding:1px 4px;border:1.5px solid;font-weight:600;white-space:nowrap}
.swap s{font-weight:400;margin-right:5px;text-decoration-thickness:1px}
.swap small{margin-left:5px;font-weight:400}
.errors{margin:0;padding:0;list-style:none;max-height:70vh;overflow-y:auto}
.errors li{padding:8px 0;border-top:1px solid var(--grid);line-height:2}
.errors li[hidden]{display:none}
.errors .note{margin:0;line-height:1.5}
.errors .swap{white-space:normal;-webkit-box-decoration-break:clone;box-decoration-break:clone}
.matrix caption{text-align:left;font-weight:600;padding-bottom:6px}
.matrix td,.matrix th{padding:5px 8px}
.end{color:var(--muted);font-size:12px}
.found{border-color:var(--good)}.missed{border-color:var(--bad);border-style:dashed}
.false{border-color:var(--warn);border-style:dotted}.kept{border:1px solid var(--muted);font-weight:400}
.key{display:flex;flex-wrap:wrap;gap:6px 18px;font-size:13px;color:var(--muted);margin:0 0 12px}
.key>span>span{color:var(--ink)}
details{margin-top:4px}summary{cursor:pointer;color:var(--muted);font-size:13px}
code,pre{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{overflow-x:auto;margin:8px 0 0}
@media print{body{background:#fff}.card{break-inside:avoid}}
"""
)
