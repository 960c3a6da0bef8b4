"""The notebooks in JupyterLab, driven in a browser: all cells run, every slider is dragged from end to end, nothing complains.

``pytest -m jupyter``. Needs JupyterLab, ipywidgets, Playwright for Python and a Chromium on the path (or at CHROMIUM). The
kernels see no network.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

pytestmark = pytest.mark.jupyter

PATIENCE = 240_000  # milliseconds: the machine may be busy, and a notebook trains
WITH_SLIDERS = re.compile(r"notebook\.explore\(")
SETTINGS = {  # all cells are in the page, whether they are in sight or not; no news is fetched
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
STATE = """() => {
    const panel = window.jupyterapp.shell.currentWidget
    if (!panel?.content?.widgets || !panel.context.isReady) return null
    const cells = panel.content.widgets.filter((cell) => cell.model.type === "code")
    return {
        status: panel.sessionContext.session?.kernel?.status,
        waiting: cells.filter((cell) => !cell.model.executionCount).length,
        cells: cells.length,
        errors: [...document.querySelectorAll('[data-mime-type$="error"], [data-mime-type$="stderr"]')].map(
            (output) => output.textContent,
        ),
    }
}"""


@pytest.fixture(scope="module")
def lab(builder, tmp_path_factory):
    """Address of a server on a copy of the notebooks' folder."""
    root = tmp_path_factory.mktemp("lab")
    folder, settings = root / "notebooks", root / "settings"
    shutil.copytree(builder.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name, values in SETTINGS.items():
        file = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join(filter(None, (str(builder.ROOT), os.environ.get("PYTHONPATH"))))
    environment = {
        **os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1",
        "JUPYTER_CONFIG_DIR": str(root / "config"), "JUPYTER_RUNTIME_DIR": str(root / "runtime"),
    }  # fmt: skip
    environment.pop(builder.STATIC, None)
    command = [
        sys.executable, "-m", "jupyter", "lab", str(folder), "--no-browser", "--allow-root", "--expose-app-in-browser",
        f"--ServerApp.port={port}", "--ServerApp.token=", "--ServerApp.password=",
        f"--LabApp.user_settings_dir={settings}", f"--LabApp.workspaces_dir={root / 'workspaces'}",
    ]  # fmt: skip
    with open(root / "log", "w") as log, subprocess.Popen(command, stdout=log, stderr=log, env=environment) as server:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
        server.terminate()


@pytest.fixture
def visitor():
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(PATIENCE)
        yield page
        browser.close()


def settled(page, started=False) -> dict:
    """What the notebook looks like once its kernel has nothing left to do."""
    quiet = 0
    for _ in range(int(PATIENCE / 250)):
        state = page.evaluate(STATE)
        done = state and state["status"] == "idle" and not (started and state["waiting"])
        quiet = quiet + 1 if done else 0
        if quiet == 4:  # for a second
            return state
        page.wait_for_timeout(250)
    raise AssertionError(f"the kernel does not come to rest: {state}")


def test_all_cells_run_and_every_slider_moves_one_picture_without_complaint(lab, visitor, source):
    text = source.read_text(encoding="utf-8")
    if not WITH_SLIDERS.search(text):
        return  # what runs without sliders is held by test_execution
    page = visitor
    page.goto(f"{lab}/lab/tree/{source.stem}.ipynb?reset")
    page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.content?.widgets?.length > 3")
    settled(page)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    page.wait_for_timeout(500)
    state = settled(page, started=True)
    assert not state["errors"], f"{source.stem}, run: {state['errors'][:2]}"

    handles = page.locator(".widget-slider .noUi-handle")
    lists = page.locator(".widget-dropdown select")
    assert handles.count() + lists.count() >= len(WITH_SLIDERS.findall(text)), "a slider is missing"
    for number in range(handles.count()):
        handle, track = handles.nth(number), page.locator(".widget-slider .noUi-base").nth(number)
        handle.scroll_into_view_if_needed()
        place = track.bounding_box()
        assert place["width"] > 200, f"the track of slider {number} is {place['width']:.0f} pixels wide"
        for share in (0.98, 0.02, 0.5):
            at = handle.bounding_box()
            page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
            page.mouse.down()
            page.mouse.move(place["x"] + share * place["width"], at["y"] + at["height"] / 2, steps=4)
            page.mouse.up()
            state = settled(page)
            assert not state["errors"], f"{source.stem}, slider {number} at {share:.0%}: {state['errors'][:2]}"
    for number in range(lists.count()):
        for option in range(lists.nth(number).locator("option").count()):
            lists.nth(number).select_option(index=option)
            state = settled(page)
            assert not state["errors"], f"{source.stem}, list {number}, choice {option}: {state['errors'][:2]}"
    for cell in page.locator(".jp-CodeCell:has(.widget-interact)").all():
        pictures = [image for image in cell.locator(".jp-OutputArea img").all() if image.is_visible()]
        assert len(pictures) == 1, f"{source.stem}: {len(pictures)} pictures beside the sliders of one cell"


def test_the_lab_opens_on_an_index_whose_links_lead_to_notebooks(lab, visitor, builder):
    makefile = (builder.ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"jupyter lab notebooks/{builder.INDEX}\n" in makefile
    visitor.goto(f"{lab}/lab/tree/{builder.INDEX}?reset")
    visitor.locator(".jp-RenderedMarkdown a", has_text="The museum of mistakes").first.click()
    visitor.locator(".jp-RenderedMarkdown h1", has_text="14. The museum of mistakes").wait_for()
