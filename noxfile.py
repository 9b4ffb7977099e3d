"""The project's chores, each in an environment of its own: `nox -s lint types tests imports docs examples build`."""

import nox

nox.options.sessions = ["lint", "tests"]
EXTRAS = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]


@nox.session
def lint(session):
    """Ruff: rules (docstrings included) and format."""
    session.install(*EXTRAS["lint"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session):
    """Check the types of the package with pyright."""
    session.install(".[types]")
    session.run("pyright", *session.posargs)


@nox.session
def tests(session):
    """Run the default tests in two processes of one thread; `nox -s tests -- -m slow` runs the slow ones."""
    session.install(".[test]")
    env = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    session.run("pytest", "--numprocesses=2", "--dist=loadfile", *session.posargs, env=env)


@nox.session
def imports(session):
    """Check who imports whom, and import every module."""
    session.install(".[test]")
    session.run("pytest", "tests/test_imports.py", *session.posargs)


@nox.session
def docs(session):
    """Build the site into site/; a warning is an error. The sources are read, not imported: no torch needed."""
    session.install(*EXTRAS["docs"])
    session.run("mkdocs", "build", "--strict", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def examples(session):
    """Run every notebook (its outputs are checked, not rewritten) and every script."""
    session.install(".[notebook]")
    session.run("python", "examples/run_all.py", *session.posargs)


@nox.session
def build(session):
    """Build the wheel and the sdist into dist/."""
    session.install("build>=1.2")
    session.run("python", "-m", "build", *session.posargs)
