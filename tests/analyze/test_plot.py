"""Logs of sessions, and the pictures of them."""

import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest

from umuxstack.analyze.curves import GRID
from umuxstack.analyze.plot import BLUE, ORANGE, draw, goodput, lives, panels
from umuxstack.cli.parser import parse
from umuxstack.core.errors import BadArgument
from umuxstack.core.units import millis, minutes
from umuxstack.driver.links.impair import Impairment
from umuxstack.driver.qlog import QlogWriter, read
from umuxstack.testing import builders
from umuxstack.testing.apps import Transfer
from umuxstack.testing.network import Network


def log_a_lossy_transfer(folder: Path) -> None:
    """200 KB from an EA to an SSA over a bad wire, logged at the sender."""
    with Network(seed=5) as net:
        client, server = net.hosts("client", "server")
        net.impair(client, up=Impairment(loss=0.03, delay=millis(10)))
        log = QlogWriter(client.stack, folder)
        session, accepted = net.established(client, server)
        client.attach(session, Transfer(bytes(200_000)))
        server.attach(accepted, Transfer())
        net.run_until(lambda: session.ended, minutes(1))
        log.drain()
        for event in client.events:
            log.note(event)
        log.close()
        assert log.error is None


def test_a_log_tells_what_the_session_did_in_qlogs_words(tmp_path: Path) -> None:
    log_a_lossy_transfer(tmp_path)
    header, events = read(tmp_path / "ea.1.qlog")
    assert header["qlog_format"] == "JSON-SEQ"
    assert header["trace"]["vantage_point"] == {"name": "ea.1", "type": "client"}
    names = {event["name"] for event in events}
    assert {
        "connectivity:connection_state_updated",
        "transport:packet_sent",
        "recovery:metrics_updated",
        "recovery:packet_lost",
        "recovery:congestion_state_updated",
    } <= names
    times = [event["time"] for event in events]
    assert times == sorted(times)
    acked = [event["data"]["acknowledged"] for event in events if event["name"] == "recovery:metrics_updated"]
    assert acked[-1] == 200_002  # SYN, content, FIN
    moments = [event["name"] for event in read(tmp_path / "leases.qlog")[1]]
    assert moments.index("umux:lease_opened") < moments.index("umux:session_established")


def test_what_happens_after_idleness_stands_in_the_log_at_its_own_time(tmp_path: Path) -> None:
    """SYN-SENT and CLOSED, and SYN-RECEIVED at a server, stood there at the time of the input before."""
    with Network(seed=5) as net:
        client, server = net.hosts("client", "server")
        log, other = QlogWriter(client.stack, tmp_path / "client"), QlogWriter(server.stack, tmp_path / "server")
        net.run_for(minutes(1))
        moments = [net.now]
        session, accepted = net.established(client, server)
        moments.append(net.now)
        for end in session, accepted:
            net.run_for(minutes(1))
            (client if end is session else server).abort(end)
            moments.append(net.now)
        for each in log, other:
            each.drain()
            each.close()
    paths = (next((tmp_path / side).glob("*.1.qlog")) for side in ("client", "server"))
    ours, theirs = ([event["time"] * 1000 for event in read(path)[1]] for path in paths)
    assert ours == [moments[0], pytest.approx(moments[1], abs=millis(3)), moments[2]]
    assert theirs == [pytest.approx(moments[0], abs=millis(3)), pytest.approx(moments[1]), moments[2] + millis(1)]


def test_the_address_of_a_ping_or_of_datagrams_is_no_waiting_one(tmp_path: Path) -> None:
    """They know no handshake, so nothing said that their session had begun: an EA was drawn as waiting for ever."""
    with Network(seed=5) as net:
        client, _ = net.hosts("client", "server")
        log = QlogWriter(client.stack, tmp_path)
        echo = client.ping("2001:db8:2::1", b"there?")
        socket = client.udp()
        client.send_to(socket, b"there?", "2001:db8:2::1")
        refused = client.connect("2001:db8:2::1")
        net.run_for(millis(500))
        client.close(echo)
        client.abort(refused)
        net.run_for(millis(500))
        for event in client.events:
            log.note(event)
        log.close()
    _, events = read(tmp_path / "leases.qlog")
    panel = lives(events)
    assert panel is not None
    colours = {bar.name: [colour for _, _, colour in bar.phases] for bar in panel.bars}
    assert colours == {echo.lease.name: [BLUE], "ea.2": [BLUE], refused.lease.name: [ORANGE]}


def test_sessions_that_share_an_address_have_a_log_each(tmp_path: Path) -> None:
    """Those of an SSA for several connections (grain `client`), and of a source that the application chose, wrote into
    one: its curves went back and forth between sessions."""
    with Network(seed=5) as net:
        shared, chosen = "2001:db8:ffff::1", "2001:db8:1::5"
        client, server = net.host("client", shared=(shared,)), net.host("server")
        log, second = QlogWriter(client.stack, tmp_path / "client"), QlogWriter(server.stack, tmp_path / "server")
        door = server.listen()
        ssa = server.das(door, grain="client").address
        sessions = [client.connect(ssa, source=builders.packed(shared)) for _ in range(2)]
        sessions += [client.connect(server.das(door).address, source=builders.packed(chosen)) for _ in range(2)]
        net.run_for(millis(10))
        for session in sessions:
            client.write(session, bytes(3000))
        net.run_for(millis(100))
        for session in sessions:
            client.abort(session)
        net.run_for(millis(10))
        for each in log, second:
            each.drain()
        assert not [path for path in Path("/proc/self/fd").iterdir() if path.resolve().suffix == ".qlog"]
        for each in log, second:
            each.close()
    for side in "client", "server":
        for path in (tmp_path / side).glob("*.qlog"):
            states = [event["data"]["new"] for event in read(path)[1] if "connection_state" in event["name"]]
            assert states.count("ESTABLISHED") == 1, path
    assert len([*(tmp_path / side).iterdir()]) == 4
    assert {"shared.1.1.qlog", "shared.1.2.qlog"} < {path.name for path in (tmp_path / "client").iterdir()}


def test_a_flood_of_syns_makes_no_files(tmp_path: Path) -> None:
    """Each half-open candidate of a service had a file of its own, for ever."""
    service = "2001:db8:2::5"
    with Network(seed=5) as net:
        client, server = net.hosts("client", "server")
        log = QlogWriter(server.stack, tmp_path)
        server.listen(address=service)
        session = client.connect(service)
        net.run_for(millis(10))
        for number in range(50):
            net.inject(builders.tcp(f"2001:db8:66::{number + 1:x}", service, flags="S", seq=number))
        net.run_for(minutes(5))
        client.abort(session)
        net.run_for(millis(10))
        log.drain()
        log.close()
    (path,) = tmp_path.glob("*.qlog")
    states = [event["data"]["new"] for event in read(path)[1] if "connection_state" in event["name"]]
    assert states == ["SYN-RECEIVED", "ESTABLISHED", "CLOSED"]


@pytest.mark.rule("UM-34")
def test_no_address_stands_in_a_log(tmp_path: Path) -> None:
    log_a_lossy_transfer(tmp_path)
    text = "".join(path.read_text() for path in tmp_path.glob("*.qlog"))
    assert "2001:db8" not in text
    assert "20010db8" not in text


@pytest.mark.parametrize("kind", ["svg", "html", "png"])
def test_the_pictures_are_whole_files_of_their_kind(tmp_path: Path, kind: str) -> None:
    log_a_lossy_transfer(tmp_path)
    target = tmp_path / f"all.{kind}"
    assert draw(sorted(tmp_path.glob("*.qlog")), target) == 5
    if kind == "png":
        assert target.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        return
    text = target.read_text()
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")  # nothing is loaded from anywhere
    for title in ("sequence numbers", "windows", "round-trip time", "goodput", "lives of addresses"):
        assert title in text
    if kind == "svg":
        ElementTree.fromstring(text)


def test_the_lives_of_addresses_say_which_colour_is_which(tmp_path: Path) -> None:
    """Only the title named the phases, and no colour."""
    log_a_lossy_transfer(tmp_path)
    draw([tmp_path / "leases.qlog"], tmp_path / "lives.svg")
    drawn = [*ElementTree.fromstring((tmp_path / "lives.svg").read_text()).iter()]
    for word, colour in (("waiting", ORANGE), ("session", BLUE), ("retiring", GRID)):
        place = next(index for index, element in enumerate(drawn) if element.text == word)
        assert drawn[place + 1].attrib["fill"] == colour


def test_a_picture_of_many_sessions_is_laid_out_without_matplotlibs_own_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seventy sessions took two minutes: what matplotlib does to find places grows with their number, squared."""
    log_a_lossy_transfer(tmp_path)
    monkeypatch.setattr("matplotlib.layout_engine.ConstrainedLayoutEngine.execute", pytest.fail)
    assert draw([tmp_path / "ea.1.qlog", tmp_path / "leases.qlog"] * 3, tmp_path / "all.png") == 15
    width, height = struct.unpack(">II", (tmp_path / "all.png").read_bytes()[16:24])
    assert (width, height // 100) == (1056, 3 * (4 * 272 + 102) * 110 // 10_000)


def test_goodput_is_what_was_acknowledged_per_time() -> None:
    steady = [(second / 10, second * 125_000.0) for second in range(101)]  # 10 Mbit/s for 10 s
    rates = [rate for _, rate in goodput(steady)]
    assert sum(rates) / len(rates) == pytest.approx(10.0)
    assert goodput(steady[:1]) == []


def test_a_log_of_nothing_gives_no_panel_and_a_clear_error(tmp_path: Path) -> None:
    assert panels({"title": "ea.1"}, []) == []
    path = tmp_path / "x.qlog"
    path.write_text("hello")
    with pytest.raises(BadArgument, match="no qlog"):
        draw([path], tmp_path / "x.svg")
    path.write_text('\x1e{"qlog_format":"JSON-SEQ","title":"ea.1"}\n')
    with pytest.raises(BadArgument, match="nothing to draw"):
        draw([path], tmp_path / "x.svg")


@pytest.mark.parametrize("content", [bytes(range(256)), b"\x80\x81", b"\x1e7\n", b"\x1e\xff\n", b""])
def test_what_is_no_log_is_named(tmp_path: Path, content: bytes) -> None:
    """A file that was no UTF-8 brought the codec's words, without the file's name."""
    path = tmp_path / "x.qlog"
    path.write_bytes(content)
    with pytest.raises(BadArgument, match=r"x\.qlog"):
        draw([path], tmp_path / "x.svg")


def test_the_command_draws_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_a_lossy_transfer(tmp_path)
    arguments = parse(["plot", str(tmp_path), "-o", str(tmp_path / "all.html")])
    assert arguments.run(arguments) == 0
    assert "5 pictures" in capsys.readouterr().out
