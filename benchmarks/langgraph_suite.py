"""LangGraph's own tests with our saver in place of the official SQLite one.

    python benchmarks/langgraph_suite.py [--folder DIR] [--url URL] [-k WORDS]

The tests come from LangGraph's source distribution of the version that is installed; nothing of
them is kept here. They run twice, with the official saver and with ours, and what passes with the
first but not with the second is listed. Both use the official, permissive serializer: the tests
store objects of their own. With `--url` our saver runs on that database, an empty one, where each
test is a tenant of its own; in a folder that is there the official outcome of last time is taken.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

NEEDS = ("pytest-mock", "syrupy", "redis", "pycryptodome", "pytest-xdist")
"""What the tests import beside what a developer of ours has."""

OURS = """
from contextlib import asynccontextmanager as _acm, contextmanager as _cm
from kapelle.checkpoints import Database

def _Database():
    database = Database(os.environ["KAPELLE_SUITE_URL"], tenant=uuid4().hex)
    database.connect().close()  # set up before a test looks at its watch, as the official ones are
    return database

@_cm
def _checkpointer_sqlite():
    with _Database() as database:
        database.saver.serde = JsonPlusSerializer()
        yield database.saver

@_cm
def _checkpointer_sqlite_aes():
    with _Database() as database:
        database.saver.serde = EncryptedSerializer.from_pycryptodome_aes(key=b"1234567890123456")
        yield database.saver

@_acm
async def _checkpointer_sqlite_aio():
    async with _Database() as database:
        database.saver.serde = JsonPlusSerializer()
        yield database.saver
"""


def fetch(folder: Path) -> Path:
    """LangGraph's sources, and what its tests need."""
    name = f"langgraph-{version('langgraph')}"
    if not (folder / name).is_dir():
        pip = [sys.executable, "-m", "pip"]
        source = ["--no-deps", "--no-binary", "langgraph", "-d", str(folder)]
        subprocess.run([*pip, "download", "-q", *source, name.replace("-", "==")], check=True)
        subprocess.run(
            [*pip, "install", "-q", "--target", str(folder / "needs"), *NEEDS], check=True
        )
        with tarfile.open(folder / f"{name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
        # The installed package is tested, not the one beside the tests.
        (folder / name / "langgraph").rename(folder / name / "not-langgraph")
    return folder / name


def run(sources: Path, *, ours: str, words: str) -> dict[str, str]:
    """Run the tests that take a saver: ours on a database, or the official one; how each ended."""
    savers = sources / "tests" / "conftest_checkpointer.py"
    official = savers.with_suffix(".official")
    if not official.exists():
        official.write_text(savers.read_text())
    savers.write_text(official.read_text() + (OURS if ours else ""))
    report = sources / f"report-{'ours' if ours else 'official'}.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    command += ["--tb=line", "-W", "ignore", f"--junitxml={report}", "-k", words, "tests"]
    needs = str(sources.parent / "needs")
    environment = {"NO_DOCKER": "true", "PYTHONPATH": needs, "PATH": "/usr/bin:/bin"}
    if ours or not report.exists():
        environment["KAPELLE_SUITE_URL"] = ours
        subprocess.run(command, cwd=sources, env=environment, check=False, capture_output=True)
    return {
        name: outcome
        for case in ET.parse(report).iter("testcase")  # noqa: S314  # our own
        for name, outcome in [_outcome(case)]
    }


def _outcome(case: ET.Element) -> tuple[str, str]:
    bad = case.find("failure") if case.find("failure") is not None else case.find("error")
    name = f"{case.get('classname')}::{case.get('name')}"
    if bad is not None:
        return name, "failed: " + (bad.get("message") or "").splitlines()[0][:150]
    return name, "skipped" if case.find("skipped") is not None else "passed"


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--url", default="sqlite://", help="where our saver keeps what it is given")
    parser.add_argument("-k", dest="words", default="sqlite")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="langgraph-suite-"))
    folder.mkdir(exist_ok=True)
    sources = fetch(folder)
    official = run(sources, ours="", words=asked.words)
    ours = run(sources, ours=asked.url, words=asked.words)
    for title, outcomes in (("official", official), ("ours", ours)):
        passed = sum(outcome == "passed" for outcome in outcomes.values())
        print(f"{title}: {passed} of {len(outcomes)} passed")
    worse = {n: o for n, o in ours.items() if o != "passed" and official.get(n) == "passed"}
    for name, outcome in worse.items():
        print(f"  {name}\n    {outcome}")
    sys.exit(bool(worse))


if __name__ == "__main__":
    main()
