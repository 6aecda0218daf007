"""fio with our engine: its rows, its source, and that what it reads is what was written."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rig import benchset, fio, image, timed
from rig.benchset import BenchSet, TimedEntry
from rig.config import Config
from rig.errors import BuildError, InfrastructureError
from rig.record import Record
from rig.results import Status
from rig.rows import parse
from rig.store import Store, open_store

ROOT = Path(__file__).parents[1]
BENCH = ROOT / benchset.DIRECTORY


@pytest.fixture
def jobs() -> ModuleType:
    """The script of the guest."""
    spec = importlib.util.spec_from_file_location("fio_jobs", BENCH / fio.SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def said(total: int = 100) -> dict[str, Any]:
    """What of fio's JSON is looked at (fio 3.33)."""
    times = {"50.000000": 10, "90.000000": 20, "99.000000": 30, "99.900000": 40}
    read = {"total_ios": total, "iops": 1234.56, "clat_ns": {"percentile": times}}
    return {"jobs": [{"read": read}]}


def test_rows_of_a_job(jobs: ModuleType) -> None:
    text = "\n".join(json.dumps(row) for row in jobs.rows("cold", "libaio", said()))
    throughput, latency = parse(text.encode())
    assert (throughput.name, throughput.value) == ("fio cold, libaio: throughput", 1234.6)
    assert latency.percentiles == {"50": 10, "90": 20, "99": 30, "99.9": 40}
    assert {row.outstanding for row in (throughput, latency)} == {16}


def test_a_job_that_read_nothing_is_none(jobs: ModuleType) -> None:
    with pytest.raises(SystemExit, match="libaio read nothing"):
        jobs.rows("cold", "libaio", said(0))


def test_every_boot_has_an_order_of_its_own(jobs: ModuleType) -> None:
    orders = [jobs.in_order(f"boot {number}") for number in range(200)]
    assert all(sorted(order) == sorted(jobs.ENGINES) for order in orders)
    assert jobs.in_order("boot 7") == orders[7]
    # Each engine is first in about a fifth of them.
    firsts = [order[0] for order in orders]
    assert all(15 <= firsts.count(engine) <= 65 for engine in jobs.ENGINES)


def test_our_engine_is_the_one_beside_the_script(jobs: ModuleType) -> None:
    words = jobs.command("cold", "async_submit", ["--rw=read"], Path("/x"))
    assert f"--ioengine=external:{BENCH / fio.ENGINE}" in words
    assert "--ioengine=psync" in jobs.command("cold", "psync", [], Path("/x"))


def test_an_archive_without_the_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(image, "host_sources", lambda suite: [])
    with pytest.raises(InfrastructureError, match="no Debian archive of sid"):
        fio.engine(BENCH / fio.SOURCE, "sid", Store(tmp_path))


@pytest.mark.kernel
def test_an_engine_that_does_not_compile(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.c"
    wrong.write_text('#include "fio.h"\nint x = y;\n')
    with pytest.raises(BuildError, match=r"wrong\.c does not compile") as caught:
        fio.engine(wrong, "bookworm", open_store())
    assert "undeclared" in caught.value.output


VERIFY = """\
import json, subprocess, sys
words = ["fio", "--name=v", "--directory=/var/tmp", "--rw=randwrite", "--bs=4k", "--size=4m",
         "--ioengine=external:./fio_async_submit.so", "--iodepth=8", "--verify=crc32c",
         "--fsync=64", "--do_verify=1", "--verify_fatal=1", "--output-format=json", "--direct=1"]
done = subprocess.run(words, capture_output=True, text=True)
sys.stderr.write(done.stdout[-1500:] + done.stderr[-1500:])
job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
print(json.dumps({"name": "verified", "value": job["read"]["total_ios"], "unit": "calls"}))
print(json.dumps({"name": "failed", "value": job["error"] + done.returncode, "unit": "errors"}))
"""


@pytest.mark.kernel
def test_what_it_writes_is_what_it_reads(rig_config: Config, tmp_path: Path) -> None:
    """In a guest, with Debian's own fio: sizes and places are where our source has them."""
    (tmp_path / "verify.py").write_text(VERIFY)
    wanted = BenchSet(tmp_path, timed=(TimedEntry("verify.py"),), machine="bench")
    engine = fio.engine(BENCH / fio.SOURCE, "bookworm", open_store())
    record = Record.begin(tmp_path / "results", "rig bench", "bench")
    (seen,) = timed.measure(
        wanted, rig_config, [rig_config.kernel()], 1, record, open_store(),
        extra={fio.ENGINE: engine},
    )  # fmt: skip
    assert seen.rows["verified"].value == 1024
    assert seen.rows["failed"].value == 0
    assert {case.status for case in record.finish().cases} == {Status.PASS}
