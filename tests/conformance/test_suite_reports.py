"""What is collected, and how results are reported, where a script is none."""

from pathlib import Path

from umuxstack.conformance.runner import Settings, run_file
from umuxstack.conformance.suite import collect, explain, write_captures

SCRIPT = """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 1) = 0
   +0 < S 0:0(0) win 1000
   +0 > S. 0:0(0) ack 1 <...>
"""


def test_a_folder_may_be_called_like_a_script(tmp_path: Path) -> None:
    """It was taken for a script, and was an error."""
    (tmp_path / "old.pkt").mkdir()
    inside = tmp_path / "old.pkt" / "syn.pkt"
    inside.write_text(SCRIPT)
    assert collect([tmp_path]) == [inside]


def test_what_cannot_be_read_has_no_line(tmp_path: Path) -> None:
    """An error that lies in no line was said to lie in line 0, at a time."""
    unreadable = tmp_path / "octets.pkt"
    unreadable.write_bytes(b"\xff\xfe")
    said = explain(run_file(unreadable))
    assert said[0].startswith(f"{unreadable}: error: 'utf-8' codec")
    wrong = tmp_path / "wrong.pkt"
    wrong.write_text("0 socket(\n")
    assert explain(run_file(wrong))[0].startswith(f"{wrong}:2: error at 0.000000 s: {wrong}:2:1: ")


def test_where_no_packet_was_there_is_no_capture(tmp_path: Path) -> None:
    """A script that did not run left an empty file among the captures."""
    good, wrong = tmp_path / "syn.pkt", tmp_path / "wrong.pkt"
    good.write_text(SCRIPT)
    wrong.write_text("0 socket(\n")
    outcomes = [run_file(path, Settings(capture=True)) for path in (good, wrong)]
    assert write_captures(outcomes, tmp_path / "captures") == 1
    assert [path.name.endswith("syn.pcap") for path in (tmp_path / "captures").iterdir()] == [True]
