"""A headless browser that looks at a page: a program of the machine, driven by its command line."""

import functools
import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_SAID = re.compile(r'<pre id="axe-said">(.*?)</pre>', re.DOTALL)


def missing() -> str | None:
    """Why no page can be looked at here; None where it can."""
    if _browser() is None:
        return "no browser: apt-get install chromium"
    if not _axe().is_file():
        return f"no axe-core in {_axe().parents[1]}: npm install --no-save axe-core"
    return None


def axe(page: str, width: int, *, dark: bool) -> list[dict[str, Any]]:
    """Violations that axe-core finds in a page as wide as ``width``, light or dark.

    The page stands in a frame of that width, since a browser's own window may not be so narrow.
    """
    script = f"""<script>{_axe().read_text()}</script><script>
      addEventListener("load", () => axe.run(document).then(found => parent.postMessage({{
        violations: found.violations, passes: found.passes.length, width: innerWidth,
        dark: matchMedia("(prefers-color-scheme: dark)").matches }}, "*")));
      </script></body>"""
    inside = html.escape(_with(page, script))
    outside = f"""<!doctype html><meta charset="utf-8"><iframe id="page" title="page" width="{width}"
      height="3000" style="border:0" srcdoc="{inside}"></iframe><script>
      addEventListener("message", event => {{ const said = document.createElement("pre");
        said.id = "axe-said"; said.textContent = JSON.stringify(event.data);
        document.body.append(said); }});</script>"""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "page.html"
        file.write_text(outside, "utf-8")
        shown = subprocess.run(
            [
                *(str(_browser()), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
                *("--no-first-run", "--disable-background-networking", "--disable-sync"),
                *("--disable-component-update", f"--user-data-dir={place}/profile"),
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                *("--window-size=1400,3200", "--virtual-time-budget=60000", "--dump-dom"),
                file.as_uri(),
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
    said = _SAID.search(shown)
    assert said is not None, "axe-core did not come to its end"
    found = json.loads(html.unescape(said[1]))
    assert found["width"] == width
    assert found["dark"] == dark
    assert found["passes"] > 5
    return found["violations"]


def _with(page: str, script: str) -> str:
    head, _, tail = page.rpartition("</body>")
    return head + script + tail


@functools.cache
def _browser() -> str | None:
    return next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


def _axe() -> Path:
    return Path(os.environ.get("AXE_CORE", ROOT / "node_modules/axe-core")) / "axe.min.js"
