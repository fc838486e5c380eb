"""The `aws` command line, unchanged, against the engine; not run where it is not installed."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("aws") is None, reason="the aws command line is not on PATH"),
]


def test_files_go_up_and_come_back(aws: Any, tmp_path: Path) -> None:
    bucket = aws.bucket()
    (tmp_path / "up.bin").write_bytes(os.urandom(9 << 20))  # above 8 MB the command line uploads in parts

    def run(*arguments: str) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **aws.process.env}
        done = subprocess.run(
            ["aws", *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("s3", "cp", "--quiet", str(tmp_path / "up.bin"), f"s3://{bucket}/folder/up.bin")
    assert "up.bin" in run("s3", "ls", f"s3://{bucket}/folder/")
    run("s3", "cp", "--quiet", f"s3://{bucket}/folder/up.bin", str(tmp_path / "down.bin"))
    assert (tmp_path / "down.bin").read_bytes() == (tmp_path / "up.bin").read_bytes()
    assert '"Status"' not in run("s3api", "get-bucket-versioning", "--bucket", bucket)
