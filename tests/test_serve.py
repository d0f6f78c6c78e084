"""The server: its addresses, and the page in a real browser."""

import asyncio
import csv
import json
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from search_cases import LENGTHS, build, make_videos, save_model

from pipeline.serving import media
from pipeline.serving.http import application, is_loopback
from pipeline.serving.service import Service
from tcmgc.datasets.table import table
from tcmgc.search import Index, Writer, calibration
from tcmgc.search.explain import explain, whole_words

BROWSER = shutil.which("chromium")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


class Server:
    """The application on a port of its own, without Ray."""

    def __init__(self, service: Service, token: str | None = None) -> None:
        import uvicorn

        async def search(request: Any) -> Any:
            return (await asyncio.to_thread(service.search, [request]))[0]

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        config = uvicorn.Config(
            application(service, search, token), port=self.port, log_level="warning", lifespan="off"
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.root = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join()

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, content and headers."""
        data = None if body is None else json.dumps(body).encode()
        given = {"Content-Type": "application/json"} if data else {}
        request = urllib.request.Request(self.root + path, data, {**given, **headers})
        opener = urllib.request.build_opener(_Stay)
        try:
            with opener.open(request, timeout=60) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)

    def search(self, query: str | None, **more: Any) -> Any:
        code, content, _ = self.ask("/api/search", {"query": query, **more})
        assert code == 200, content
        return json.loads(content)


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tower: str) -> Path:
    root = tmp_path_factory.mktemp("served")
    model = save_model(root / "model", tower)
    make_videos(root / "videos", LENGTHS)
    make_videos(root / "videos", {"long.mp4": 70}, rate=1)
    # No browser plays this one as it is.
    make_videos(root / "videos", {"old.avi": 40}, codec="mpeg4")
    build(root / "index", root / "videos", model)
    writer = Writer.open(Index.open(str(root / "index")).place)
    writer.note_root(str(root / "videos"))
    writer.commit()
    found = calibration.calibrate(Index.open(str(root / "index")))
    assert found is not None
    writer.calibrate(found.to_dict())
    return root


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    server = Server(Service(str(folder / "index"), str(folder / "labels")))
    yield server
    server.close()


def by_name(answer: Any) -> dict[str, Any]:
    return {Path(one["path"]).name: one for one in answer["results"]}


def test_programs_can_search(server: Server) -> None:
    answer = server.search("a red ball", top=3)
    assert [one["rank"] for one in answer["results"]] == [1, 2, 3]
    assert answer["windows"] == 8
    code, content, _ = server.ask("/openapi.json")
    assert code == 200
    assert "/api/search" in json.loads(content)["paths"]
    like = server.search(None, like=answer["results"][0]["id"])
    assert answer["results"][0]["path"] not in [one["path"] for one in like["results"]]
    assert by_name(server.search("a", longer_than=10.0)).keys() == {"long.mp4"}


@pytest.mark.parametrize(
    ("body", "code", "word"),
    [
        ({"query": ""}, 400, "empty"),
        ({}, 400, "nothing to search by"),
        ({"query": "a", "top": 0}, 422, "top"),
        ({"query": "a" * 10_001}, 422, "10000"),
        ({"query": None, "like": "x.1"}, 404, "search again"),
        ({"query": "a", "like": "../../etc.0"}, 404, "search again"),
    ],
)
def test_bad_searches_are_answered(server: Server, body: Any, code: int, word: str) -> None:
    found, content, _ = server.ask("/api/search", body)
    assert (found, word in content.decode()) == (code, True)


@pytest.mark.parametrize(
    "query",
    [
        "<script>alert(1)</script>",
        "'; DROP TABLE x",
        "犬が水に飛び込む",
        "🐕" * 500,
        "\x00a",
        "a" * 9999,
    ],
)
def test_any_query_is_safe(server: Server, query: str) -> None:
    assert server.search(query)["query"] == query


def test_many_clients_at_once(server: Server) -> None:
    alone = {query: server.search(query)["results"] for query in ("a dog", "the sea", "a red ball")}
    with ThreadPoolExecutor(24) as pool:
        queries = list(alone) * 16
        for query, answer in zip(queries, pool.map(server.search, queries), strict=True):
            assert [one["path"] for one in answer["results"]] == [
                one["path"] for one in alone[query]
            ]


def test_queries_that_come_together_are_answered_each(folder: Path) -> None:
    from pipeline.serving.service import SearchRequest

    service = Service(str(folder / "index"), str(folder / "labels"))
    asked = [
        SearchRequest(query="a dog", top=2),
        SearchRequest(query="", top=2),
        SearchRequest(query="the sea", top=2),
        SearchRequest(query="the sea", top=3),
    ]
    first, empty, sea, more = service.search(asked)
    assert isinstance(first, dict)
    assert isinstance(sea, dict)
    assert isinstance(more, dict)
    assert isinstance(empty, ValueError)
    assert (first["query"], sea["query"], len(more["results"])) == ("a dog", "the sea", 3)
    assert sea["results"] == more["results"][:2]


def test_a_new_version_is_seen(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.serving.service.REFRESH", 0.0)
    shutil.copytree(folder / "index", tmp_path / "index")
    service = Service(str(tmp_path / "index"), str(tmp_path / "labels"))
    writer = Writer.open(Index.open(str(tmp_path / "index")).place)
    writer.forget(str(folder / "videos/a.mp4"))
    writer.commit()
    assert service.about()["videos"] == 4
    (tmp_path / "index/index.json").write_text("{")
    assert service.about()["videos"] == 4


# Videos


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-9", media.Range(0, 10)),
        ("bytes=90-", media.Range(90, 10)),
        ("bytes=-5", media.Range(95, 5)),
        ("bytes=-500", media.Range(0, 100)),
        ("bytes=50-1000", media.Range(50, 50)),
        ("bytes=0-1,5-6", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
    ],
)
def test_ranges(header: str | None, expected: media.Range | None) -> None:
    assert media.parse_range(header, 100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=5-4", "bytes=-0"])
def test_ranges_outside_the_file_are_refused(header: str) -> None:
    with pytest.raises(ValueError, match="is not in a file of 100 bytes"):
        media.parse_range(header, 100)


def test_videos_are_served_by_ranges(server: Server, folder: Path) -> None:
    one = by_name(server.search("a red ball"))["a.mp4"]
    content = (folder / "videos/a.mp4").read_bytes()
    code, whole, headers = server.ask(f"/api/video/{one['id']}")
    assert (code, whole, headers["accept-ranges"]) == (200, content, "bytes")
    code, part, headers = server.ask(f"/api/video/{one['id']}", Range="bytes=10-19")
    assert (code, part) == (206, content[10:20])
    assert headers["content-range"] == f"bytes 10-19/{len(content)}"
    code, _, headers = server.ask(f"/api/video/{one['id']}", Range="bytes=999999999-")
    assert (code, headers["content-range"]) == (416, f"bytes */{len(content)}")


def test_a_moment_can_be_had_as_a_clip(server: Server) -> None:
    import av

    one = by_name(server.search("a red ball"))["old.avi"]
    code, content, _ = server.ask(f"/api/clip/{one['id']}")
    assert code == 200
    import io

    with av.open(io.BytesIO(content)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert sum(1 for _ in container.decode(video=0)) == 40


def test_only_what_the_index_names_is_served(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "all", symlinks=True)
    videos = tmp_path / "all/videos"
    shutil.rmtree(tmp_path / "all/index")
    build(tmp_path / "all/index", videos, folder / "model")
    server = Server(Service(str(tmp_path / "all/index"), str(tmp_path / "labels")))
    try:
        found = by_name(server.search("a red ball"))
        secret = tmp_path / "secret.mp4"
        secret.write_text("secret")
        (videos / "a.mp4").unlink()
        (videos / "a.mp4").symlink_to(secret)
        (videos / "b.mp4").unlink()
        for name in ("a.mp4", "b.mp4"):
            assert server.ask(f"/api/video/{found[name]['id']}")[0] == 404
            assert server.ask(f"/api/strip/{found[name]['id']}")[0] == 200
        again = by_name(server.search("a red ball"))
        assert (again["a.mp4"]["state"], again["b.mp4"]["state"]) == ("changed", "missing")
        for path in ("/api/video/..%2f..%2fetc%2fpasswd", "/page/..%2fhttp.py", "/page/x"):
            assert server.ask(path)[0] == 404
    finally:
        server.close()


def test_what_the_page_shows_of_a_moment(server: Server, folder: Path) -> None:
    one = by_name(server.search("a red ball"))["long.mp4"]
    code, content, _ = server.ask(f"/api/explain/{one['id']}?query=a+red+ball")
    found = json.loads(content)
    assert code == 200
    assert found["score"] == pytest.approx(one["score"], abs=1e-5)
    assert found["words"] == ["a", "red", "ball"]
    for weights in (found["sentence_weights"], *found["word_weights"]):
        assert len(weights) == len(found["times"]) == 4
        assert sum(weights) == pytest.approx(1, abs=1e-3)
    assert sum(c["weight"] for c in found["contrasts"]) == pytest.approx(1, abs=1e-3)
    assert all(one["start"] <= time < one["end"] for time in found["times"])
    code, content, _ = server.ask(f"/api/frames/{one['id']}")
    assert (code, content[:2]) == (200, b"\xff\xd8")
    with pytest.raises(ValueError, match="empty"):
        explain(Index.open(str(folder / "index")), " ", 0)


def test_tokens_of_a_word_stand_together() -> None:
    tokens = [("a", [1]), ("gli", [2]), ("ding", [3]), ("dog", [4]), (",", [5]), ("?", [6])]
    words = whole_words("A gliding  dog, ?", tokens)
    assert words == [("a", [1]), ("gliding", [2, 3]), ("dog,", [4, 5]), ("?", [6])]


# Who may ask


def test_other_sites_pages_are_refused(server: Server) -> None:
    assert server.ask("/api/index", Origin="http://evil.example")[0] == 403
    assert server.ask("/api/index", Host="evil.example")[0] == 403
    assert server.ask("/api/index", Origin=server.root)[0] == 200
    code, _, headers = server.ask("/")
    assert code == 200
    assert "default-src 'none'" in headers["content-security-policy"]


def test_a_token_is_asked_for(folder: Path) -> None:
    server = Server(Service(str(folder / "index"), str(folder / "labels")), token="sésame")
    try:
        assert server.ask("/api/index")[0] == 401
        assert server.ask("/?token=wrong")[0] == 401
        code, _, headers = server.ask("/?token=s%C3%A9same")
        assert code == 303
        assert "HttpOnly" in headers["set-cookie"]
    finally:
        server.close()
    server = Server(Service(str(folder / "index"), str(folder / "labels")), token="sesame")
    try:
        assert (
            server.ask("/api/index", Authorization="Bearer sesame", Host="other.example")[0] == 200
        )
        assert server.ask("/api/index", Cookie="tcmgc-token=sesame")[0] == 200
        assert server.ask("/api/index", Cookie="tcmgc-token=other")[0] == 401
    finally:
        server.close()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("box", False)],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# Labels


def test_thumbs_become_a_table_that_training_takes(server: Server, folder: Path) -> None:
    found = by_name(server.search("a red ball"))
    for name, right in (("a.mp4", False), ("a.mp4", True), ("b.mp4", True), ("c.mp4", False)):
        body = {"id": found[name]["id"], "query": " a red\nball ", "right": right}
        assert server.ask("/api/label", body)[0] == 200
    rows = list(csv.DictReader((folder / "labels/table.csv").open()))
    assert [(row["video"], row["caption"]) for row in rows] == [
        ("videos0/a.mp4", "a red ball"),
        ("videos0/b.mp4", "a red ball"),
    ]
    assert "videos0/c.mp4" in (folder / "labels/rejected.csv").read_text()
    text = (folder / "labels/table.csv").read_text()
    split = (
        text.replace("end\n", "end,split\n")
        .replace("2\n", "2,train\n")
        .replace("2.4\n", "2.4,test\n")
    )
    (folder / "labels/table.csv").write_text(split)
    try:
        corpus = table(str(folder / "labels"))
        clips = [clip for part in corpus.values() for clip in part.clips]
        assert sorted(Path(clip.path).name for clip in clips) == ["a.mp4", "b.mp4"]
        assert all(Path(clip.path).is_file() for clip in clips)
    finally:
        (folder / "labels/table.csv").write_text(text)


# The page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no chromium on this machine")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((server.root, "data:", "blob:"))
            else wrong.append(request.url)
        ),
    )
    page.goto(server.root)
    page.wait_for_selector("#blank h2")
    yield page
    assert wrong == []
    context.close()


def until(page: Any, condition: str) -> None:
    """Wait for a condition in the page, whose policy forbids Playwright's own way of waiting for one."""
    end = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def results(page: Any, query: str) -> Any:
    page.fill("#query", query)
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#status').textContent.includes(' ms')")
    return page.locator(".card")


def test_a_sentence_gives_moments(page: Any, server: Server) -> None:
    cards = results(page, "a red ball")
    assert cards.count() == 5
    names = page.locator(".card .name").all_text_contents()
    answer = server.search("a red ball", top=30)
    assert names == [Path(one["path"]).name for one in answer["results"]]
    until(page, "document.querySelector('.card img').naturalWidth > 0")
    assert "q=a+red+ball" in page.url
    page.reload()
    page.wait_for_selector(".card")
    assert page.input_value("#query") == "a red ball"


def test_a_moment_plays_from_its_start(page: Any) -> None:
    results(page, "a red ball")
    card = page.locator(".card", has_text="long.mp4")
    card.locator(".open").click()
    page.wait_for_selector(".frames .weight")
    start = page.locator("#title").text_content().split("· ")[1].split("–")[0]
    seconds = int(start.split(":")[0]) * 60 + int(start.split(":")[1])
    until(page, f"document.querySelector('video').currentTime >= {seconds}")
    assert page.evaluate("document.querySelector('video').videoWidth") == 96
    page.locator(".words button", has_text="ball").click()
    assert page.locator(".words [aria-pressed=true]").all_text_contents() == ["ball"]
    assert page.locator(".contrasts tbody tr").count() == 4


def test_what_the_browser_cannot_play_is_encoded_again(page: Any) -> None:
    results(page, "a red ball")
    page.locator(".card", has_text="old.avi").locator(".open").click()
    until(page, "document.querySelector('video').src.includes('/api/clip/')")
    until(page, "document.querySelector('video').videoWidth > 0")
    until(page, "document.querySelector('#playing').textContent.includes('encoded again.')")


def test_more_like_this_and_back(page: Any) -> None:
    results(page, "a red ball")
    page.locator(".card", has_text="a.mp4").locator(".like-this").click()
    page.wait_for_selector("#like:not([hidden])")
    until(page, "![...document.querySelectorAll('.name')].some((n) => n.textContent === 'a.mp4')")
    page.go_back()
    until(page, "document.querySelector('#query').value === 'a red ball'")
    until(page, "document.querySelectorAll('.card').length === 5")


def test_the_keyboard_alone(page: Any) -> None:
    results(page, "a red ball")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("2:")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    title = page.locator("#title").text_content()
    page.keyboard.press("j")
    until(page, f"document.querySelector('#title').textContent !== {json.dumps(title)}")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog:not([open])", state="attached")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"


def test_thumbs_are_kept(page: Any, folder: Path) -> None:
    results(page, "the sea at night")
    card = page.locator(".card", has_text="b.mp4")
    card.get_by_label("Fits the query", exact=True).click()
    until(page, "document.querySelectorAll('.tools [aria-pressed=true]').length === 1")
    assert "the sea at night" in (folder / "labels/table.csv").read_text()


def test_nothing_found_and_errors_are_said(page: Any) -> None:
    page.locator("summary").click()
    page.fill("[name=longer_than]", "5000")
    page.fill("#query", "a red ball")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=No video passes")
    page.get_by_text("Search everything").click()
    page.wait_for_selector(".card")
    page.route("**/api/search", lambda route: route.abort())
    page.fill("#query", "the sea")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=the server does not answer")
    page.unroute("**/api/search")
    page.get_by_text("Try again").click()
    page.wait_for_selector(".card")
    results(page, "собака")
    assert "Cyrillic" in page.locator("#notes").text_content()


def test_waiting_is_seen(page: Any) -> None:
    held: list[Callable[[], None]] = []
    page.route("**/api/search", lambda route: held.append(route.continue_))
    page.fill("#query", "a red ball")
    page.keyboard.press("Enter")
    page.wait_for_selector("#progress:not([hidden])")
    page.wait_for_selector("text=Still searching")
    held[0]()
    page.wait_for_selector(".card")
    page.wait_for_selector("#progress", state="hidden")


def test_markup_in_a_query_stays_text(page: Any) -> None:
    results(page, "<img src=x onerror=alert(1)>")
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark"), (390, "light")])
def test_nothing_is_wider_than_the_screen(
    browser: Any, server: Server, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(server.root)
    page.wait_for_selector("#blank h2")
    results(page, "a red ball")
    page.locator(".card .open").first.click()
    page.wait_for_selector(".frames .weight")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(16, 21, 21)") == (scheme == "dark")
    context.close()
