"""The benchmark harness, with tiny sizes: every measurement gives a number, and nothing stays behind.

In a process of its own, because it forks.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.catalogue import CATALOGUE

ROOT = Path(__file__).parents[2]
TINY = ("--rounds", "1", "--seconds", "0.05", "--connections", "20", "--sessions", "1000", "--packets", "500")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.run", *arguments]


@pytest.mark.system
def test_every_measurement_gives_a_number_in_every_variant(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    run = subprocess.run(
        command(*TINY, "--json", str(result)), cwd=ROOT, check=False, timeout=120, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    samples = report.load(result).samples
    for measurement in CATALOGUE:
        for variant in measurement.variants:
            (value,) = samples[measurement.name][variant]
            assert value > 0, (measurement.name, variant)


@pytest.mark.system
def test_ctrl_c_ends_every_process_of_a_run() -> None:
    arguments = ("--only", "bulk_in", "--rounds", "1", "--seconds", "60")
    with subprocess.Popen(
        command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as run:
        group = run.pid
        wait_for_processes(group, 3)  # the run itself, the subject and its peer
        os.killpg(group, signal.SIGINT)
        run.communicate(timeout=20)
        assert run.returncode == 128 + signal.SIGINT
    assert processes(group) == []


def processes(group: int) -> list[int]:
    """The live processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended meanwhile
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def wait_for_processes(group: int, count: int) -> None:
    until = time.monotonic() + 20
    while len(processes(group)) < count:
        assert time.monotonic() < until, f"only {len(processes(group))} processes"
        time.sleep(0.05)


def run_with(value: float) -> report.Run:
    """A result whose bulk-in ratio is `value`, and whose idle session takes 500 bytes."""
    samples = {
        "bulk_in": {"kernel": [10.0, 20.0], "umux": [10.0 * value, 20.0 * value]},
        "memory": {"EA, idle": [500.0]},
    }
    return report.Run("now", {"cores": "2"}, {"rounds": 2}, samples)


def test_a_ratio_ten_percent_lower_is_a_regression() -> None:
    text, worse = report.compare(run_with(0.8), run_with(0.7))
    assert "WORSE" in text
    assert len(worse) == 1
    assert "bulk in" in worse[0]


def test_a_slower_machine_is_no_regression() -> None:
    slower = report.Run("now", {"cores": "2"}, {"rounds": 2}, {"bulk_in": {"kernel": [5.0], "umux": [4.0]}})
    _, worse = report.compare(run_with(0.8), slower)
    assert worse == []


def test_more_bytes_per_session_are_a_regression() -> None:
    bigger = report.Run("now", {"cores": "2"}, {"rounds": 1}, {"memory": {"EA, idle": [560.0]}})
    _, worse = report.compare(run_with(0.8), bigger)
    assert len(worse) == 1


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    run = run_with(0.8)
    run.save(tmp_path / "results" / "run.json")
    assert report.load(tmp_path / "results" / "run.json") == run


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"format": 0}))
    with pytest.raises(ValueError, match="take it again"):
        report.load(path)


def test_goals_are_judged_by_the_ratio_or_by_the_value() -> None:
    text = report.table(run_with(0.9))
    assert "≥ 0.85 yes" in text
    assert "≤ 500 yes" in text
