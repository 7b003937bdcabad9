"""TLS by trio over our own streams and over its sockets on us: trio's check of two-way streams, and five megabytes."""

import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from socket import AF_INET6, SOCK_STREAM
from typing import Any

import pytest
import trio
from trio.testing import check_two_way_stream

from tests.driver.conftest import Pair

NAME = "umux.example"
# Of nobody's: made for this test, valid for a hundred years.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBnjCCAUSgAwIBAgIUSRJgeIUf/np7DHGgo6RPLNXhiJ4wCgYIKoZIzj0EAwIw
FzEVMBMGA1UEAwwMdW11eC5leGFtcGxlMCAXDTI2MTEyOTE1NTMyOFoYDzIxMjYx
MTA1MTU1MzI4WjAXMRUwEwYDVQQDDAx1bXV4LmV4YW1wbGUwWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAASoMQnguQvT0rUV9vQKe2E5FnbcYIAvAPk9OQ4OcP2YFm40
jSz/IuuKqNuGO2eedJX94IWnkcBMqQZoQNqWhS/5o2wwajAdBgNVHQ4EFgQUi8ov
MKVCaT8uQBb97yqa0cU0dBowHwYDVR0jBBgwFoAUi8ovMKVCaT8uQBb97yqa0cU0
dBowDwYDVR0TAQH/BAUwAwEB/zAXBgNVHREEEDAOggx1bXV4LmV4YW1wbGUwCgYI
KoZIzj0EAwIDSAAwRQIgQV1JkGezkuJYelPeUu78Pj2aWQoLtuG6vL/vTeIe3XoC
IQDb4iuWOEOcY0j/68BsVV4t22t5o8g44HNy9MeNLrxUrg==
-----END CERTIFICATE-----
"""
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgv2VVgl3tQ00YbuMn
hSzwEsCME+3MODc6Fi2OKwVP826hRANCAASoMQnguQvT0rUV9vQKe2E5FnbcYIAv
APk9OQ4OcP2YFm40jSz/IuuKqNuGO2eedJX94IWnkcBMqQZoQNqWhS/5
-----END PRIVATE KEY-----
"""
AMOUNT = 5_000_000

Ends = tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]


async def over_sockets(pair: Pair) -> Ends:
    with pair.server.socket_factory.socket(AF_INET6, SOCK_STREAM, 0) as listening:
        await listening.bind(("2001:db8:2::443", 443))
        listening.listen()
        client = pair.client.socket_factory.socket(AF_INET6, SOCK_STREAM, 0)
        await client.connect(("2001:db8:2::443", 443))
        server, _ = await listening.accept()
        return trio.SocketStream(client), trio.SocketStream(server)


@pytest.mark.parametrize("connect", [Pair.session, over_sockets])
async def test_trios_tls_runs_over_a_session(
    pair: Pair, tmp_path: Path, connect: Callable[[Pair], Awaitable[Ends]]
) -> None:
    (tmp_path / "certificate").write_text(CERTIFICATE)
    (tmp_path / "key").write_text(KEY)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    asking = ssl.create_default_context(cafile=tmp_path / "certificate")

    async def wrapped() -> tuple[trio.SSLStream[Any], trio.SSLStream[Any]]:
        ours, theirs = await connect(pair)
        return (
            trio.SSLStream(ours, asking, server_hostname=NAME, https_compatible=True),
            trio.SSLStream(theirs, serving, server_side=True, https_compatible=True),
        )

    await check_two_way_stream(wrapped, None)
    client, server = await wrapped()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, bytes(AMOUNT))
        arrived = 0
        while arrived < AMOUNT:
            arrived += len(await server.receive_some(100_000))
    assert arrived == AMOUNT
    await client.aclose()
    await server.aclose()
