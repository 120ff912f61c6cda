"""The command line in a process of its own."""

import subprocess
import sys

from conftest import PROJECT


def without_torch(*argv: str) -> subprocess.CompletedProcess:
    """The command, which fails where torch has been imported."""
    code = "import sys\nfrom adlib.__main__ import main\nstatus = main(sys.argv[1:])\n"
    code += "sys.exit('torch is there' if 'torch' in sys.modules else status)"
    return subprocess.run([sys.executable, "-c", code, *argv], cwd=PROJECT, capture_output=True, text=True, check=False)
