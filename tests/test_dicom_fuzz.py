"""Broken DICOM files end in our own errors, in bounded memory and time; a crash of a decoder would be seen too."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory and time as Linux does")
def test_no_broken_file_does_harm():
    command = [sys.executable, str(Path(__file__).with_name("fuzz_dicom.py")), "250", "20260101"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    shown, refused = (int(word) for word in done.stdout.replace(",", "").split() if word.isdecimal())
    assert shown > 25 and refused > 100
    assert not done.stderr  # neither pydicom nor a C library has said a word of what it met
