"""The labelling page's server: who may ask what, and what becomes of masks."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import raw_png, spot, stored
from PIL import Image

from nbs_env.data import load
from nbs_env.desk.label.folder import UNLABELLED, Folder, Outside

uvicorn = pytest.importorskip("uvicorn", reason="the extra `label` is not installed")
pytest.importorskip("starlette", reason="the extra `label` is not installed")

from nbs_env.desk.label.looking import Looking  # noqa: E402
from nbs_env.desk.label.server import Desk, make_app  # noqa: E402
from nbs_env.desk.label.training import Training  # noqa: E402

TOKEN = "secret"
PUT = "api/masks/4?version=none&left=0&top=0&width=128&height=128"
FULL = np.packbits(spot()).tobytes()
Answer = tuple[int, dict[str, str], bytes]


class Client:
    """Speaks HTTP as a hostile page could: nothing is tidied up on the way."""

    def __init__(self, home: Path) -> None:
        self.folder = Folder(home)
        self.looking = Looking(self.folder, Training(self.folder, []))
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        app = make_app(Desk(self.folder, self.looking.training, self.looking), TOKEN, self.port)
        config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([listener],))
        self.thread.start()

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join()

    def ask(self, method: str, path: str, body: bytes = b"", token: str = TOKEN, **headers: str) -> Answer:
        """The answer; headers with the value "" are left out."""
        own = {"Host": f"127.0.0.1:{self.port}", "Origin": f"http://127.0.0.1:{self.port}"}
        own |= {"Content-Length": str(len(body))} | {k.replace("_", "-"): v for k, v in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.putrequest(method, f"/{token}/{path}", skip_host=True, skip_accept_encoding=True)
        for name, value in own.items():
            if value:
                connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        answer = response.status, dict(response.getheaders()), response.read()
        connection.close()
        return answer

    def paint(self, number: int, version: str, mask: np.ndarray, left: int = 0, top: int = 0) -> Answer:
        box = f"left={left}&top={top}&width={mask.shape[1]}&height={mask.shape[0]}"
        return self.ask("PUT", f"api/masks/{number}?version={version}&{box}", np.packbits(mask).tobytes())


@pytest.fixture
def client(mine: Path) -> Iterator[Client]:
    client = Client(mine)
    yield client
    client.close()


def test_a_mask_is_on_disc_as_it_was_painted(client: Client, mine: Path) -> None:
    status, headers, _ = client.ask("GET", "api/masks/4")
    assert (status, headers["x-version"], headers["x-size"]) == (204, UNLABELLED, "128 128")
    version = json.loads(client.paint(4, UNLABELLED, spot())[2])["version"]
    np.testing.assert_array_equal(stored(mine / "masks" / "4.png"), spot() * 255)
    patch = np.array([[1, 0, 1], [0, 1, 1]], bool)
    status, _, body = client.paint(4, version, patch, 100, 126)
    expected = spot()
    expected[126:128, 100:103] = patch
    np.testing.assert_array_equal(stored(mine / "masks" / "4.png"), expected * 255)
    status, headers, body = client.ask("GET", "api/masks/4")
    assert (status, headers["x-version"]) == (200, client.folder.version(4))
    np.testing.assert_array_equal(np.unpackbits(np.frombuffer(body, np.uint8)), expected.ravel())
    dataset = load("folder", mine, image_size=128)
    np.testing.assert_array_equal(dataset.masks[4], expected)
    assert sorted(path.name for path in (mine / "masks").iterdir()) == [f"{i}.png" for i in range(5)]


def test_an_empty_mask_says_good_and_a_removed_one_nothing(client: Client, mine: Path) -> None:
    version = json.loads(client.paint(4, UNLABELLED, np.zeros((128, 128), bool))[2])["version"]
    assert load("folder", mine, image_size=128).kinds[4] == "good"
    assert json.loads(client.ask("GET", "api/state")[2])["labelled"]["4"] is False
    assert client.ask("DELETE", f"api/masks/4?version={version}")[0] == 200
    assert not load("folder", mine, image_size=128).has_mask[4]
    assert "4" not in json.loads(client.ask("GET", "api/state")[2])["labelled"]


def test_two_tabs_do_not_overwrite_each_other(client: Client, mine: Path) -> None:
    _, headers, _ = client.ask("GET", "api/masks/0")
    version = headers["x-version"]  # which both tabs have
    one, other = spot(), np.roll(spot(), 50)
    assert client.paint(0, version, one)[0] == 200
    status, _, body = client.paint(0, version, other)
    assert status == 409
    assert json.loads(body)["version"] == client.folder.version(0)
    np.testing.assert_array_equal(stored(mine / "masks" / "0.png"), one * 255)
    assert client.ask("DELETE", f"api/masks/0?version={version}")[0] == 409
    Image.fromarray(other).save(mine / "masks" / "0.png")  # as another program would
    assert client.paint(0, json.loads(body)["version"], one)[0] == 409


def test_hostile_requests_are_refused(client: Client, mine: Path) -> None:
    outside = mine.parent / "outside.png"
    Image.fromarray(spot()).save(outside)
    before = {path: path.read_bytes() for path in mine.parent.rglob("*.png")}
    port = client.port
    refused = [
        client.ask("GET", "", token="wrong"),
        client.ask("GET", "api/images/0", token=""),
        client.ask("GET", "api/names", Host=f"evil.example:{port}"),
        client.ask("GET", "api/names", Host=""),
        client.ask("GET", "api/names", Origin="https://evil.example"),
        client.ask("GET", "api/names", Origin="null"),
        client.ask("PUT", PUT, FULL, Origin=f"http://127.0.0.1:{port + 1}"),
        client.ask("PUT", PUT, FULL, Origin=""),
        client.ask("POST", "api/train/start", Origin="https://evil.example"),
        client.ask("POST", "api/train/rm%20-rf"),
    ]
    for path in (
        *("../outside.png", "..%2foutside.png", "%2e%2e/outside.png", "api/images/..%2f..%2foutside.png"),
        *("api/images/-1", "api/images/5", "api/images/0/../../../outside.png", "page.py", "server.py"),
        *("api/masks//etc/passwd", "//etc/passwd", "page.css/..%2fserver.py"),
    ):
        refused.append(client.ask("GET", path))
        refused.append(client.ask("PUT", path, FULL))
    for status, _, body in refused:
        assert status in (400, 403, 404, 405), body
        assert b"PNG" not in body
    assert {path: path.read_bytes() for path in mine.parent.rglob("*.png")} == before


def test_a_body_is_read_up_to_the_size_of_its_mask(client: Client) -> None:
    assert client.ask("PUT", PUT, FULL[:10], Content_Length=str(10**9))[0] == 413
    assert client.ask("PUT", PUT, FULL + b"0")[0] == 413
    assert client.ask("POST", "api/next", b" " * (2**20 + 1))[0] == 413
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(FULL), FULL) for _ in range(3)) + b"0\r\n\r\n"
    assert client.ask("PUT", PUT, chunks, Content_Length="", Transfer_Encoding="chunked")[0] == 413
    for wrong in (FULL[:-1], b""):
        assert client.ask("PUT", PUT, wrong)[0] == 400
    for box in ("left=-1&top=0&width=8&height=8", "left=121&top=0&width=8&height=8"):
        assert client.ask("PUT", f"api/masks/4?version=none&{box}", bytes(8))[0] == 422
    for box in ("left=0&top=0&width=0&height=8", "left=0&top=0&width=1000000&height=1000000", "left=x"):
        assert client.ask("PUT", f"api/masks/4?version=none&{box}", bytes(8))[0] == 400
    assert client.ask("POST", "api/next", b'{"passed": 3}')[0] == 400
    assert client.folder.version(4) == UNLABELLED


def test_a_mask_that_could_not_be_trained_from_is_not_written(client: Client) -> None:
    status, _, body = client.paint(4, UNLABELLED, np.ones((128, 128), bool))
    assert status == 422
    assert "every pixel is marked" in json.loads(body)["error"]
    assert client.folder.version(4) == UNLABELLED


def bomb(path: Path, side: int) -> None:
    """A small PNG file that decodes to a square of `side` pixels."""
    path.write_bytes(raw_png(side, side, 8, 0, b""))


def ambiguous(path: Path, value: int) -> None:
    Image.fromarray(np.full((128, 128), value, np.uint8)).save(path)


@pytest.mark.parametrize(
    ("spoil", "value", "why"),
    [
        (bomb, 12_000, "12000x12000 pixels, but its image 0.png has 128x128"),
        (bomb, 40_000, "0.png"),
        (ambiguous, 85, "could mean several things"),
    ],
)
def test_a_mask_that_cannot_be_read_blocks_its_image_and_is_kept(
    spoil: Callable[[Path, int], None],
    value: int,
    why: str,
    client: Client,
    mine: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**30 // 12)  # Pillow's own, whatever ran before
    spoil(mine / "masks" / "0.png", value)
    bomb(mine / "images" / "1.png", 40_000)
    for path, message in (("api/masks/0", why), ("api/images/1", "too large an image")):
        status, _, body = client.ask("GET", path)
        assert status == 422
        assert message in json.loads(body)["error"]
    before = (mine / "masks" / "0.png").read_bytes()
    assert client.paint(0, client.folder.version(0), spot())[0] == 422
    assert (mine / "masks" / "0.png").read_bytes() == before


def test_links_out_of_the_folder_are_not_followed(client: Client, mine: Path) -> None:
    outside = mine.parent / "outside"
    outside.mkdir()
    Image.fromarray(spot()).save(outside / "secret.png")
    content = (outside / "secret.png").read_bytes()
    for link in (mine / "images" / "3.png", mine / "masks" / "3.png"):
        link.unlink()
        link.symlink_to(outside / "secret.png")
    for path in ("api/images/3", "api/thumbs/3", "api/masks/3"):
        status, _, body = client.ask("GET", path)
        assert status == 403
        assert "a link out of" in json.loads(body)["error"]
    assert client.paint(3, client.folder.version(3), spot())[0] == 403
    assert (outside / "secret.png").read_bytes() == content
    shutil.rmtree(mine / "masks")
    (mine / "masks").symlink_to(outside)
    (outside / "secret.png").unlink()
    with pytest.raises(Outside):
        client.folder.paint(4, UNLABELLED, (0, 0, 128, 128), spot())
    assert not list(outside.iterdir())
