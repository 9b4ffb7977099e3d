"""Run the notebook and every script of this folder, each in an empty folder; a failure gives a non-zero exit."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main():
    scripts = [path for path in sorted(HERE.glob("*.py")) if path.name not in ("run_all.py", "build_quickstart.py")]
    commands = [[sys.executable, str(script)] for script in scripts]
    commands.append([sys.executable, str(HERE / "build_quickstart.py"), "--check"])
    for command in commands:
        begin = time.perf_counter()
        print(f"== {Path(command[1]).name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(command, cwd=folder, check=True)
        print(f"   {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
