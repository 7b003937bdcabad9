"""apps/httpd.py, on a wire in memory."""

from pathlib import Path

import pytest
from trio.testing import MockClock

from apps import httpd

REQUEST = b"GET /any/path HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n"


@pytest.mark.rule("UM-24.e")
async def test_the_label_of_an_address_is_its_page(autojump_clock: MockClock) -> None:
    answers = await httpd.demo()
    assert answers["menu"].endswith(b"\r\n\r\n<h1>Today: soup</h1>\n")
    assert answers["bill"].endswith(b"\r\n\r\n<h1>Table 7 owes 12</h1>\n")
    assert answers["secret"].startswith(b"HTTP/1.1 404 ")
    assert b"<h1>Hello, 2001:db8:2:" in answers[""]


def test_pages_are_the_html_files_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_bytes(b"front")
    (tmp_path / "menu.html").write_bytes(b"soup")
    (tmp_path / "notes.txt").write_bytes(b"not shown")
    assert httpd.load_pages(tmp_path) == {"": b"front", "menu": b"soup"}


def test_the_length_is_right_and_the_connection_closes() -> None:
    head, _, body = httpd.answer(REQUEST, b"soup").partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 200 OK"
    assert b"Content-Length: 4" in head.split(b"\r\n")
    assert b"Connection: close" in head.split(b"\r\n")
    assert body == b"soup"


def test_head_is_answered_without_the_body() -> None:
    answer = httpd.answer(REQUEST.replace(b"GET", b"HEAD"), b"soup")
    assert b"Content-Length: 4" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"POST / HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /\r\n\r\n", b"400"),
        (b"GET / HTTP/2\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 4000, b"400"),
    ],
)
def test_what_is_not_a_plain_request_is_refused(request_head: bytes, status: bytes) -> None:
    assert httpd.answer(request_head, b"soup").split(b" ")[1] == status
