"""Run every notebook and every script of this folder, each in an empty folder; a failure gives a non-zero exit."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
NO_EXAMPLES = ("run_all.py", "build_notebook.py", "harivo_training.py")  # the last is what a notebook imports


def main():
    scripts = [path for path in sorted(HERE.glob("*.py")) if path.name not in NO_EXAMPLES]
    commands = [[sys.executable, str(script)] for script in scripts]
    for notebook in sorted(HERE.glob("*.cells")):
        commands.append([sys.executable, str(HERE / "build_notebook.py"), notebook.stem, "--check"])
    for command in commands:
        begin = time.perf_counter()
        print("==", Path(command[1]).name, *command[2:], flush=True)
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(command, cwd=folder, check=True)
        print(f"   {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
