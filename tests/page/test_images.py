"""Images in the browser: a picture with its seed, cost and time, saved; and each state in which there is none."""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.images import image_list
from tests.servers.loopback import Reply, dead_url, hang
from tests.servers.openai import FakeOpenAI
from tests.support.databases import a_ledger
from tests.support.gateway_server import HASH_CHAIN, RunningServer, ServerProcess, gateway_server
from tests.support.page_views import NARROW, Views
from tests.support.server_keys import make_key, revoke
from tests.support.tiny_images import SIDE_PIXELS, pipeline
from tests.support.ways import until

Open = Callable[[str], Views]
PROMPT = "A lighthouse at dusk"
DRAWS = "/v1/images/generations"
PIXELS = """() => [...document.querySelectorAll("li.picture img")].map((picture) => {
  const canvas = new OffscreenCanvas(picture.naturalWidth, picture.naturalHeight).getContext("2d");
  canvas.drawImage(picture, 0, 0);
  return [...canvas.getImageData(0, 0, picture.naturalWidth, picture.naturalHeight).data].join();
})"""
"""Return what the pictures show, the last one first."""


def lighthouse(width: int = 512, height: int = 384) -> bytes:
    """Return a PNG: a light over the sea."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (width, height))
    canvas = ImageDraw.Draw(picture)
    horizon = height * 2 // 3
    for row in range(horizon):
        part = row / horizon
        canvas.line((0, row, width, row), fill=(int(40 + 190 * part), int(45 + 90 * part), int(95 + 20 * part)))
    canvas.rectangle((0, horizon, width, height), fill=(26, 44, 78))
    middle = width * 2 // 3
    canvas.polygon([(middle, height // 3), (0, height // 5), (0, height // 2)], fill=(246, 214, 150))
    canvas.polygon(
        [(middle - 16, height // 3), (middle + 16, height // 3), (middle + 28, horizon), (middle - 28, horizon)],
        fill=(236, 232, 226),
    )
    canvas.rectangle((middle - 14, height // 3 - 22, middle + 14, height // 3), fill=(250, 240, 190))
    canvas.polygon(
        [(middle - 20, height // 3 - 22), (middle + 20, height // 3 - 22), (middle, height // 3 - 44)],
        fill=(150, 40, 40),
    )
    canvas.ellipse((middle - 120, horizon - 16, middle + 120, horizon + 40), fill=(48, 46, 54))
    kept = io.BytesIO()
    picture.save(kept, "PNG")
    return kept.getvalue()


@pytest.fixture(scope="module")
def artist() -> Iterator[FakeOpenAI]:
    """A server that draws."""
    with FakeOpenAI(models=None) as server:
        yield server


@pytest.fixture(scope="module")
def server(artist: FakeOpenAI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("images")
    config = (
        '[chains.art]\ntask = "image"\nmodel = "owner/art"\nmax_retries = 0\n'
        f'targets = ["openai:{dead_url()}", "openai:{artist.url}"]\n'
        f'[prices."owner/art"]\ntask = "image"\nprovider = "openai:{artist.url}"\nper_image = 0.003\n'
    )
    with pytest.MonkeyPatch.context() as patch, a_ledger("sqlite", folder) as url:
        # Prices are read when an answer ends, in whatever folder that is.
        patch.setenv("HF_GATEWAY_CONFIG", str(folder / "hf-gateway.toml"))
        with gateway_server(config, folder=folder, database=url) as running:
            yield running


@pytest.fixture
def views(server: RunningServer, artist: FakeOpenAI, open_page: Open) -> Iterator[Views]:
    opened = open_page(server.url)
    opened.show("Images")
    opened.page.get_by_label("Prompt", exact=True).wait_for()
    yield opened
    artist.recover()


def draw(views: Views, prompt: str = PROMPT) -> None:
    views.page.get_by_label("Prompt", exact=True).fill(prompt)
    views.button("Draw", exact=True).click()


def picture(views: Views, place: int = 0) -> str:
    """Wait for so many pictures and one more; returns what stands beside the last one."""
    views.page.locator("li.picture").nth(place).wait_for()
    views.button("Draw", exact=True).wait_for()
    return views.page.locator("li.picture").first.inner_text()


def test_a_picture_comes_with_seed_cost_and_time_and_is_saved(artist: FakeOpenAI, views: Views) -> None:
    drawn = lighthouse()
    artist.always(Reply(200, image_list(drawn)), path=DRAWS)
    views.text("The picture comes here, with its seed")
    views.check("images, new")
    views.page.get_by_label("Size").fill("wide")
    views.page.get_by_label("Steps").fill("0")
    views.text("Must be width x height in pixels")
    views.text("Must be a whole number from 1 to 1000")
    assert views.button("Draw", exact=True).is_disabled()
    views.check("images, wrong settings")
    views.page.get_by_label("Size").fill("512x384")
    views.page.get_by_label("Steps").fill("20")
    views.page.get_by_label("Guidance").fill("7.5")
    views.page.get_by_label("Seed").fill("7")
    draw(views)
    about = picture(views)
    views.text("512 × 384")
    assert re.search(r"Cost\s+\$0\.003", about)
    assert re.search(r"Time\s+\d", about)
    assert re.search(r"Seed\s+7\n", about)
    assert "openai:owner/art" in about
    assert "1 target before it did not answer" in about
    sent = artist.requests[-1].json
    assert (sent["prompt"], sent["size"], sent["seed"]) == (PROMPT, "512x384", 7)
    heard = views.page.get_by_role("status").filter(has_text="The picture is there, drawn by openai:owner/art")
    heard.wait_for(state="attached")
    views.check("images, a picture")
    views.picture("images")
    views.picture("images-dark", dark=True, width=NARROW)
    with views.page.expect_download() as downloading:
        views.button("Save", exact=True).click()
    assert downloading.value.suggested_filename == "a-lighthouse-at-dusk-7.png"
    assert downloading.value.path().read_bytes() == drawn


def test_a_new_seed_each_time_and_the_same_one_again(artist: FakeOpenAI, views: Views) -> None:
    draw(views)
    picture(views)
    views.button("Another seed").click()
    picture(views, 1)
    first, second = (request.json["seed"] for request in artist.requests[-2:])
    assert first != second
    views.button("Use these settings").last.click()
    assert views.page.get_by_label("Seed").input_value() == str(first)
    views.button("Draw", exact=True).click()
    assert f"Seed\n{first}\n" in re.sub(r"\n+", "\n", picture(views, 2))
    assert artist.requests[-1].json["seed"] == first
    views.button("Remove").first.click()
    views.page.locator("li.picture").nth(2).wait_for(state="detached")


@pytest.mark.complaints("status of 50", "status of 40")
def test_no_picture_says_why_and_drawing_is_stopped(artist: FakeOpenAI, views: Views) -> None:
    artist.always(Reply(400, {"error": {"message": "the prompt is not allowed"}}), path=DRAWS)
    draw(views)
    views.text("There is no picture")
    views.text("the prompt is not allowed")
    views.check("images, failed")
    artist.recover()
    held, asked = hang(), artist.count(DRAWS)
    artist.fail(held, path=DRAWS)
    views.button("Try again").click()
    views.text("Drawing …")
    until(lambda: artist.count(DRAWS) > asked)
    assert views.page.get_by_text("There is no picture").count() == 0
    views.check("images, drawing")
    views.button("Stop").click()
    views.page.get_by_role("status").filter(has_text="Stopped").wait_for(state="attached")
    held.release()
    # By the keyboard alone.
    views.page.get_by_label("Prompt", exact=True).focus()
    views.page.keyboard.press("Control+Enter")
    picture(views)


def test_a_pipeline_in_the_servers_process_draws_the_same_picture_by_the_same_seed(
    open_page: Open, tmp_path: Path
) -> None:
    config = f'[chains.tiny]\ntask = "image"\ntargets = ["local:{pipeline(tmp_path / "tiny")}"]\n'
    with ServerProcess(config, environment={"HF_GATEWAY_HOME": str(tmp_path / "home")}) as process:
        views = open_page(process.url)
        views.show("Images")
        views.page.get_by_label("Prompt", exact=True).wait_for()
        for name, value in (("Size", f"{SIDE_PIXELS}x{SIDE_PIXELS}"), ("Steps", "2"), ("Guidance", "5"), ("Seed", "7")):
            views.page.get_by_label(name).fill(value)
        draw(views, "a cat on the moon")
        about = picture(views)
        assert re.search(r"Seed\s+7\n", about)
        assert "local:" in about
        views.text(f"{SIDE_PIXELS} × {SIDE_PIXELS}")
        views.button("Draw", exact=True).click()
        picture(views, 1)
        views.button("Another seed").first.click()
        picture(views, 2)
        pixels = views.page.evaluate(PIXELS)
    third, second, first = pixels
    assert first == second
    assert first != third


@pytest.mark.complaints("status of 401")
def test_a_key_that_is_revoked_while_drawing_ends_the_session_and_keeps_what_was_written(
    artist: FakeOpenAI, open_page: Open, tmp_path: Path
) -> None:
    config = f'[chains.art]\ntask = "image"\nmodel = "owner/art"\nmax_retries = 0\ntargets = ["openai:{artist.url}"]\n'
    with a_ledger("sqlite", tmp_path) as url, gateway_server(config, database=url) as server:
        key, other = make_key(url), make_key(url)
        server.state.authenticator.forget()
        views = open_page(server.url)
        sign_in(views, key)
        views.show("Images")
        views.page.get_by_label("Prompt", exact=True).wait_for()
        held, asked = hang(), artist.count(DRAWS)
        artist.fail(held, path=DRAWS)
        draw(views)
        until(lambda: artist.count(DRAWS) > asked)
        revoke(url, key)
        server.state.authenticator.forget()
        views.show("Health")
        views.text("You were signed out")
        views.text("Sign in again to go on")
        views.check("signed out while drawing")
        held.release()
        artist.recover()
        sign_in(views, other)
        views.show("Images")
        views.text("The picture comes here, with its seed")
        assert views.page.get_by_label("Prompt", exact=True).input_value() == PROMPT
        views.button("Draw", exact=True).click()
        picture(views)


def sign_in(views: Views, key: str) -> None:
    views.page.get_by_label("Key, or token of your identity provider").fill(key)
    views.button("Sign in").click()


@pytest.mark.complaints("status of 401", "ERR_CONNECTION", "ERR_EMPTY_RESPONSE", "Failed to fetch")
def test_each_other_state_says_what_to_do(open_page: Open, tmp_path: Path) -> None:
    with a_ledger("sqlite", tmp_path) as url, gateway_server(HASH_CHAIN, database=url) as server:
        views = open_page(server.url)
        views.text("The only target answers")
        views.show("Images")
        views.text("This server has no chain for images yet")
        views.check("images, no chain")
        keys = [make_key(url, scopes={"read"}), make_key(url, chains=frozenset({"another"}))]
        server.state.authenticator.forget()
        views.page.reload()
        views.text("This server needs a key.")
        sign_in(views, keys[0])
        views.text("Your key does not allow drawing pictures")
        views.check("images, forbidden")
        views.button("Sign out").click()
        sign_in(views, keys[1])
        views.text("Your key may use no chain for images")
    views.show("Health")
    views.show("Images")
    views.text("The models could not be listed")
    views.check("images, offline")
