"""Makes the pictures of the README: the report of a quickstart, and the page of a model for invented entities.

electramed quickstart && python -m electramed_jax.examples.text_to_entities
python .docs/screenshots.py quickstart text-to-entities/finetuned
"""

from __future__ import annotations

import io
import pathlib
import sys

from PIL import Image

from electramed_jax.data.corpus import corpus_dir
from electramed_jax.finetune.predictor import load_model
from electramed_jax.serve.services import make_service

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "support"))
from headless import open_tab, opened_browser  # noqa: E402
from try_page import running  # noqa: E402

SIZE = {"width": 1000, "height": 800}
NUM_COLORS = 128  # keeps a picture below 200 kB


def save(tab, name: str) -> None:
    """Writes the visible part of a page to images/NAME.png."""
    picture = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
    path = HERE / "images" / f"{name}.png"
    picture.quantize(NUM_COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main(quickstart: pathlib.Path, finetuned: str) -> None:
    """Opens both pages and saves the pictures."""
    texts = list(corpus_dir.Texts(str(quickstart / "documents"), "test"))
    with opened_browser() as browser, open_tab(browser, SIZE["width"], "light") as tab:
        tab.set_viewport_size(SIZE)
        tab.goto((quickstart / "run" / "report" / "report.html").resolve().as_uri())
        tab.wait_for_selector(".plotly svg", state="attached")
        tab.get_by_role("heading", name="Learning").evaluate("heading => heading.scrollIntoView()")
        tab.wait_for_timeout(3000)  # plotly draws
        save(tab, "report")
        service = make_service(load_model(finetuned, None), finetuned)
        with running(service) as url:
            tab.goto(url)
            tab.fill("textarea", texts[0])
            tab.keyboard.press("Tab")
            tab.keyboard.press("Enter")
            tab.wait_for_selector("mark")
            save(tab, "try_page")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
