"""The page in a browser, with the network cut: it computes, it is driven, and it never says anything on its console.

Needs Playwright for Python and a Chromium on the path (or at CHROMIUM).
"""

import json
import os
import shutil
import threading
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from support import build
from support_page import CONFIGS

from minids.checkpoint.tokenizer import byte_tokenizer, character_tokenizer
from minids.lab import page as minids_page

pytestmark = pytest.mark.page

PAGE = Path(__file__).parents[3] / "docs" / "page" / "index.html"
STEPS = 13
V2_CONFIG = dict(
    num_hidden_layers=60, num_attention_heads=128, kv_lora_rank=512, qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128
)
PATIENCE = 120_000  # milliseconds: the machine may be busy


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    )
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser):
    """Open a page without a network; at the end nothing may have been asked of one, and nothing have gone wrong."""
    contexts, wrong = [], []

    def opened(path: Path | str = PAGE, hash: str = "", size=(1440, 900), offline=True, **context):
        contexts.append(browser.new_context(viewport={"width": size[0], "height": size[1]}, offline=offline, **context))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        here = path if isinstance(path, str) else path.as_uri()
        page.on("request", lambda r: r.url.split("#")[0] != here and not r.url.startswith("blob:") and wrong.append(r.url))
        page.goto(here + hash)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong, wrong


def settled(page, tokens: int | None = None) -> dict:
    """Wait until the engine has done what it was asked for, and the page has been drawn; the page's state."""
    page.wait_for_timeout(60)
    for _ in range(PATIENCE // 100):
        there = page.evaluate(
            """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done({
                ids: state.ids, read: state.entries.length, playing: state.playing, token: state.token, layer: state.layer,
                first: state.entries.map((e) => e.routes.map((r) => r && firstExpert(r))), mistake: state.mistake,
                passes: Math.max(0, ...state.entries.map((e) => e.pass)), text: byId("input").value,
                busy: state.busy || panels.some((one) => one.stale),
            }))))"""
        )
        done = not (there["playing"] or there["busy"]) and there["read"] == len(there["ids"])
        if done and (tokens is None or len(there["ids"]) >= tokens):
            return there
        page.wait_for_timeout(100)
    raise AssertionError(f"still at {there['read']} of {len(there['ids'])} tokens")


def set_slider(page, name: str, value: float) -> None:
    page.locator(f"#{name}").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', { bubbles: true })); }", value
    )


def write(page, text: str, more: int = 0) -> dict:
    """That text and so many tokens more, as fast as the engine goes."""
    page.evaluate("([text, more]) => { goesOn = false; setText(text, more, true); }", [text, more])
    return settled(page, 2 + more)


def run_selftest(page) -> int:
    page.click("#selftest")
    result = page.locator("#selftest-result", has_text="passed")
    result.wait_for()
    said = result.inner_text()
    assert "FAILED" not in said, page.locator("#tests .bad").all_inner_texts()
    return int(said.split()[0])


def test_the_page_passes_its_own_test(visit):
    page = visit()
    settled(page)
    assert run_selftest(page) >= 30


def test_a_comparison_does_not_end_the_pages_test(visit):
    page = visit()
    write(page, "The value of the list is returned.")
    page.evaluate("() => { byId('selftest').click(); compare('softmax_gate'); }")
    page.locator("#mistake-found .pair-row").first.wait_for()
    page.locator("#selftest-result", has_text="passed").wait_for()


def test_the_page_has_its_length_while_it_writes(visit):
    """A panel that is drawn when one scrolls to it moves the button that one is about to press."""
    page = visit()
    page.wait_for_function("() => state.seen && !unsized && state.playing")
    while_writing = page.evaluate("() => document.documentElement.scrollHeight")
    settled(page)
    assert abs(page.evaluate("() => document.documentElement.scrollHeight") - while_writing) < 300


OTHERS = (
    "no MTP",
    "three MTP modules",
    "greedy softmax router",
    "no groups",
    "all layers dense",
    "YaRN",
    "tied embedding",
    "biases",
)


@pytest.mark.parametrize("name", [*OTHERS, "characters"])
def test_any_small_model_has_a_page(name, visit, tmp_path):
    tokenizer = (
        character_tokenizer(["abcdefghijklmno pqrstuvwxyz,.;()+=:0123456789\n"]) if name == "characters" else byte_tokenizer()
    )
    config = CONFIGS.get(name, CONFIGS["V3"]).replace(vocab_size=tokenizer.vocab_size, bos_token_id=tokenizer.bos_id)
    model = build(config.replace(max_position_embeddings=96), dtype=np.float32)
    model.tokenizer = tokenizer
    (tmp_path / "page.html").write_text(minids_page.build(model, name=name), encoding="utf-8")
    page = visit(tmp_path / "page.html")
    write(page, "one, two; 3 + 4", 20)
    assert run_selftest(page) >= 10
    for step in range(1, STEPS + 1):
        page.evaluate("(step) => goTo(step - 1)", step)
        settled(page)
    assert page.locator("#tour-title").inner_text() == "Now you"


def test_one_types_and_the_model_goes_on(visit):
    page = visit()
    page.fill("#speed", "100")
    page.click("#clear")
    settled(page)
    page.locator("#input").press_sequentially("def read(")
    typed = settled(page)
    assert typed["text"].startswith("def read(")
    after = settled(page, len(typed["ids"]) + 20)  # after a moment without a key
    assert after["text"].startswith("def read(") and len(after["text"]) > len("def read(") + 20
    colours = page.locator("#tokens span").evaluate_all("spans => new Set(spans.map((s) => s.style.background)).size")
    assert colours >= 4  # experts have colours, and not all tokens the same


def test_typing_in_the_middle_keeps_what_is_before(visit):
    page = visit()
    before = write(page, "The value of the list is returned.")
    page.evaluate("() => { goesOn = false; byId('input').focus(); byId('input').setSelectionRange(17, 17); }")
    page.keyboard.type("long ")
    after = settled(page)
    assert after["text"] == "The value of the long list is returned."
    same = page.evaluate("() => tokenizer.encode('The value of the').length + 1")
    assert after["ids"][:same] == before["ids"][:same]
    whole = page.evaluate("() => [tokenizer.bos, ...tokenizer.encode(byId('input').value)]")
    assert after["ids"] == whole


def test_one_token_at_a_time_and_another_in_its_place(visit):
    page = visit()
    before = write(page, "The value of the ")
    page.click("#step")
    after = settled(page, len(before["ids"]) + 1)
    assert len(after["ids"]) == len(before["ids"]) + 1
    page.evaluate("() => pick(3)")
    page.locator("#alternatives li:not(.here) button").first.click()
    replaced = settled(page, 4)
    assert replaced["ids"][:3] == after["ids"][:3] and replaced["ids"][3] != after["ids"][3]


def test_caret_buttons_and_pointer_pick_the_token_that_all_panels_show(visit):
    page = visit()
    write(page, "The value of the list is returned.", 20)
    page.click("#token-back")
    page.click("#token-back")
    picked = settled(page)
    assert picked["token"] == len(picked["ids"]) - 3
    page.locator("#input").focus()
    for _ in range(3):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert settled(page)["token"] in (1, 2)
    name = page.locator("#token-now code").inner_text()
    assert page.locator("#attention-head").evaluate("e => e.textContent").endswith(f"from “{name}” back")
    page.evaluate("() => scrollTo({ top: 0, behavior: 'instant' })")
    page.locator("#input").blur()
    span = page.locator("#tokens span").nth(5).bounding_box()
    page.mouse.move(span["x"] + span["width"] / 2, span["y"] + span["height"] / 2)
    page.wait_for_timeout(300)
    assert page.locator("#token-now b").inner_text() == "5"


def test_in_a_long_text_every_token_can_be_pointed_at(visit):
    page = visit()
    there = write(page, "The value of the list is returned.\n\n" * 8, 60)
    page.evaluate("() => { byId('surface').scrollTop = 1e6; byId('surface').scrollIntoView({ block: 'center' }); }")
    page.wait_for_timeout(300)
    last = len(there["ids"]) - 1
    while not (box := page.locator("#tokens span").nth(last).bounding_box()) or box["width"] < 4:
        last -= 1  # a line's end has no width
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
    page.wait_for_timeout(300)
    assert page.locator("#token-now b").inner_text() == str(last)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    page.mouse.move(5, 5)
    assert settled(page)["token"] in (last, last - 1, None)


def test_the_routers_sliders_move_the_tokens_and_undo_brings_them_back(visit):
    page = visit()
    trained = write(page, "def read(self, path):\n    return [line for line in open(path)]\n", 30)
    groups = int(page.locator("#groups").get_attribute("max"))
    set_slider(page, "groups", groups)
    free = settled(page)
    assert free["ids"] == trained["ids"] and free["first"] != trained["first"]
    assert "groups kept" in page.locator("#alarm").inner_text()
    page.click("#as-trained")
    assert settled(page)["first"] == trained["first"]
    assert page.locator("#alarm").is_hidden()
    page.select_option("#bias-expert", index=2)
    set_slider(page, "bias-amount", 1)
    raised = settled(page)
    loads = page.locator("#load rect").evaluate_all("bars => bars.map((b) => b.dataset.say)")
    assert f"Expert 3: {raised['read']} of {raised['read']} tokens" in loads[2]
    page.uncheck("#bias-on")
    assert settled(page)["ids"] == trained["ids"]


def test_the_story_of_a_choice_ends_with_the_experts_that_were_chosen(visit):
    page = visit()
    write(page, "The value of the list is returned.", 10)
    names = []
    for _ in range(6):
        settled(page)
        names.append(page.locator("#story-note .step-name").evaluate("e => e.textContent"))
        page.locator("#story-on").evaluate("b => b.click()")
    assert names == ["1 · Scores", "2 · Plus bias", "3 · Groups ranked", "4 · Groups go dark", "5 · The best stay", "6 · Gates"]
    rings, chosen = page.locator("#story .ring").count(), page.evaluate("() => routeShown().chosen.length")
    assert rings == chosen
    assert "= 2.50" in page.locator("#story-note").evaluate("e => e.textContent")
    lit = page.locator("#wall .lit").count()
    assert lit == page.evaluate("() => moeLayers.length * CHOSEN")


def test_guesses_change_the_passes_and_not_the_text(visit):
    page = visit()
    page.fill("#temperature", "0")
    plain = write(page, "What is 17 + 25?\n", 40)
    page.evaluate("() => change({ guesses: 2 })")
    guessed = write(page, "What is 17 + 25?\n", 40)
    assert guessed["ids"] == plain["ids"]
    assert plain["passes"] >= len(plain["ids"]) - 20 > guessed["passes"]
    assert page.locator("#guess-strip .guess.good").count() > 0


def test_a_mistake_is_compared_and_switched_on(visit):
    page = visit()
    write(page, "The value of the list is returned.", 30)
    page.locator("[data-value=rope_in_the_other_layout]").click()
    page.locator("#mistake-found .pair-row").first.wait_for()
    right, wrong = (float(row) for row in page.locator("#mistake-found .pair-row b").all_inner_texts())
    assert wrong > right + 0.1
    before = settled(page)
    page.click("#mistake-switch")
    after = settled(page)
    assert after["mistake"] == "rope_in_the_other_layout" and after["first"] != before["first"]
    assert "RoPE pairs in the other layout" in page.locator("#alarm").inner_text()
    page.locator("[data-value=rope_key_per_head]").click()
    page.locator("#mistake-found .small-numbers", has_text="→").first.wait_for()
    c = page.evaluate("() => config")
    one = c["kv_lora_rank"] + c["qk_rope_head_dim"]
    many = c["kv_lora_rank"] + c["num_attention_heads"] * c["qk_rope_head_dim"]
    assert f"{one} → {many}" in page.locator("#mistake-found .small-numbers").inner_text()
    page.click("#as-trained")
    assert settled(page)["first"] == before["first"]


def test_every_mistake_can_be_made_and_unmade(visit):
    page = visit()
    trained = write(page, "def read(self, path):\n", 12)
    for name in page.locator("#mistake-list [data-value]").evaluate_all("buttons => buttons.map((b) => b.dataset.value)"):
        page.evaluate("(name) => { change({ mistake: name }); write(0); }", name)
        settled(page)
    page.evaluate("() => { change({ mistake: null }); write(0); }")
    assert settled(page)["first"] == trained["first"]


def test_v3s_numbers_are_those_of_the_reports(visit):
    page = visit(hash="#step=4")
    settled(page, 40)
    words = page.locator("#cache-large").inner_text()
    for number in ("3,997,696 bytes", "70,272 bytes", "20,011", "2,277", "640"):
        assert number in words, number
    assert page.locator("#pages .mha .big").inner_text() == "40"
    page.click("#run-full")
    page.locator("#full-note", has_text="MHA is full").wait_for()
    page.select_option("#known", "Llama-3.1-405B")
    settled(page)
    assert "516,096 bytes" in page.locator("#cache-large").inner_text()
    page.click("summary >> text=Another model")
    page.fill("#pasted", json.dumps(V2_CONFIG))
    page.click("#use-pasted")
    settled(page)
    assert f"{60 * 576 * 2:,} bytes" in page.locator("#cache-large").inner_text()
    page.fill("#pasted", "{")
    page.click("#use-pasted")
    assert page.locator("#pasted-note").inner_text() == "This is no JSON."
    page.fill("#pasted", "{}")
    page.click("#use-pasted")
    assert page.locator("#pasted-note").inner_text() == "It does not say num_hidden_layers or n_layer."


def test_the_tour_goes_by_keys_and_its_steps_are_addresses(visit):
    page = visit(hash="#step=3")
    assert page.locator("#tour-count").inner_text() == f"3 of {STEPS}"
    page.keyboard.press("ArrowRight")
    assert page.locator("#tour-title").inner_text() == "At V3's size: 40 pages or 2,277"
    assert page.url.endswith("#step=4")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#tour-count").inner_text() == f"2 of {STEPS}"
    page.evaluate("() => { location.hash = '#step=11'; }")
    page.locator("#tour-title", has_text="A guess ahead").wait_for()
    page.keyboard.press("Escape")
    assert page.locator("#tour").is_hidden() and "#" not in page.url
    settled(page)


def test_a_link_restores_what_was_seen(visit):
    page = visit()
    page.fill("#temperature", "0.9")
    write(page, "The value of the list is ", 24)
    page.evaluate(
        """() => {
            change({ layer: 1, head: 2, story: 3, guesses: 2, biases: [[2, 5, -0.25]], topk_group: 3 });
            pick(9);
            write(0);
        }"""
    )
    before = settled(page)
    link = page.evaluate("() => linkTo()")
    again = visit(hash="#" + link.split("#")[1])
    after = settled(again, len(before["ids"]))
    assert after["ids"] == before["ids"] and after["first"] == before["first"]
    assert (after["token"], after["layer"]) == (9, 1)
    kept = again.evaluate("() => [state.head, state.story, state.guesses, state.biases, state.topk_group, state.temperature]")
    assert kept == [2, 3, 2, [[2, 5, -0.25]], 3, 0.9]


def test_a_link_that_makes_no_sense_does_no_harm(visit):
    page = visit(hash="#ids=1.99999.x&layer=77&mistake=nothing&token=-4&known=none&biases=a_b_c!9_9_9")
    there = settled(page, 2)
    assert there["text"] and there["mistake"] is None


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_letters_can_be_read_on_every_expert(theme, visit):
    page = visit(color_scheme=theme)
    worst = page.evaluate(
        """() => {
            const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
            const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            const luminance = (colour) => {
                context.fillStyle = colour;
                context.fillRect(0, 0, 1, 1);
                const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((v) => linear(v / 255));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const contrast = (a, b) => {
                const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
                return (x + 0.05) / (y + 0.05);
            };
            const pairs = Array.from({ length: E }, (_, e) => [expertColour(e), colourOf("ink")]);
            for (const name of ["muted", "good", "bad", "latent", "rope", "ink", "accent"]) {
                for (const on of ["paper", "card"]) pairs.push([colourOf(name), colourOf(on)]);
            }
            return Math.min(...pairs.map(([a, b]) => contrast(a, b)));
        }"""
    )
    assert worst >= 4.5  # WCAG 2.2, AA


@pytest.mark.parametrize("size", [(390, 844), (320, 640), (820, 1180), (1440, 900), (1920, 1080)], ids=str)
def test_nothing_sticks_out_sideways(size, visit):
    page = visit(size=size, has_touch=size[0] < 500, is_mobile=size[0] < 500)
    write(page, "def read(self, path):\n    return ", 30)
    for tab in ("tab-large", "tab-here"):
        page.locator(f"#{tab}").evaluate("b => b.click()")
        page.locator("[data-value=softmax_gate]").evaluate("b => b.click()")
        page.locator("#mistake-found .pair-row").first.wait_for()
        settled(page)
        width = page.evaluate("() => document.documentElement.scrollWidth")
        assert width <= size[0], f"{width} pixels"


@pytest.mark.parametrize("size", [(1920, 1080), (1280, 720)], ids=str)
def test_every_step_of_the_tour_fits_a_slide(size, visit):
    page = visit(size=size)
    write(page, "The value of the list is ", 60)
    for step in range(1, STEPS + 1):
        page.evaluate("(step) => goTo(step - 1)", step)
        settled(page)
        if step == 12:
            page.locator("#mistake-found .versus").wait_for()
        page.wait_for_timeout(150)
        high, wide = page.evaluate("() => [document.documentElement.scrollHeight, document.documentElement.scrollWidth]")
        assert high <= size[1] + 1 and wide <= size[0], f"step {step}: {wide} × {high}"
        inside = page.evaluate("() => byId('tour').scrollHeight <= byId('tour').clientHeight + 1")
        assert inside, f"step {step}: the words do not fit"


def test_numbers_explain_themselves_to_pointer_and_keyboard(visit):
    page = visit(size=(1440, 600))
    write(page, "The value of the list is ", 10)
    page.hover("#cache-columns .mla figcaption .n")
    assert "d_c + d_r" in page.locator("#tip").inner_text()
    page.locator("#input").focus()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.dataset.x"):
            break
    assert page.locator("#tip").is_visible()
    assert page.evaluate("() => document.activeElement.getAttribute('aria-describedby')") == "tip"
    moved = page.evaluate(
        "() => new Promise((done) => { addEventListener('scroll', () => setTimeout(done, 50, scrollY), "
        "{ once: true }); scrollBy(0, scrollY > 30 ? -30 : 30); })"
    )
    assert moved >= 0 and page.locator("#tip").is_visible(), "scrolling took the words away from the focused number"
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    unknown = page.evaluate(
        "() => [...document.querySelectorAll('[data-x]')].map((e) => e.dataset.x).filter((key) => !EXPLAINED[key])"
    )
    assert unknown == []


def test_every_control_has_a_name_and_groups_go_by_arrow_keys(visit):
    page = visit()
    write(page, "The value of the list is ", 10)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, [role=button], canvas, svg")]
            .filter((e) => !(e.textContent.trim() && e.matches("button")) && !e.getAttribute("aria-label") && !e.labels?.length)
            .map((e) => e.outerHTML.slice(0, 90))"""
    )
    assert nameless == []
    page.locator("#layers [aria-checked=true]").focus()
    before = settled(page)["layer"]
    page.keyboard.press("ArrowLeft")
    assert settled(page)["layer"] == before - 1
    assert page.evaluate("() => document.activeElement.getAttribute('aria-checked')") == "true"


def test_with_reduced_motion_the_text_is_there_at_once(visit):
    page = visit(reduced_motion="reduce")
    there = settled(page, 60)
    assert page.evaluate("() => [reducedMotion, goesOn]") == [True, False]
    page.wait_for_timeout(1500)
    assert settled(page)["ids"] == there["ids"]  # and nothing goes on by itself


def test_it_prints(visit):
    page = visit()
    write(page, "The value of the list is ", 10)
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_from_a_server_one_request_is_made(visit):
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(PAGE.parent))

        def log_message(self, *arguments):
            asked.append(self.path)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        page = visit(f"http://127.0.0.1:{server.server_port}/index.html", offline=False)
        write(page, "The value of the list is ", 10)
        assert run_selftest(page) >= 30
    finally:
        server.shutdown()
    assert asked == ["/index.html"]


def test_in_a_notebooks_frame_it_computes(visit, tmp_path):
    cell = minids_page.Cell(PAGE.read_text(encoding="utf-8"), 700)
    outer = tmp_path / "cell.html"
    outer.write_text(f"<!doctype html><title>a cell</title>{cell._repr_html_()}", encoding="utf-8")
    page = visit(outer)
    page.frame_locator("iframe").locator("#status", has_text="tokens").wait_for()
    page.frame_locator("iframe").locator("#status", has_text="loss").wait_for()
