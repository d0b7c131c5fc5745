"""The example of approvals does what it says."""

from pathlib import Path

import pytest

from examples.mails import main


def test_the_clerk_sends_what_was_approved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = main(tmp_path)
    assert sorted(sent) == [
        "ann@example.org: The pilot goes on.",
        "bob@example.org: The pilot goes on.",
    ]
    assert "done: Both know." in capsys.readouterr().out
