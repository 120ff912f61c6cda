"""The project's own promises: what is installed is what is locked, CI does what the README says, nothing lies about."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version

import pytest
import yaml
from conftest import PROJECT

from adlib.batch.evidence import LARGEST

# design: what may stand at the top
TOP = {".ci", ".github", ".gitignore", "CITATION.cff", "LICENSE", "Makefile", "README.md", "Snakefile", "adlib"}
TOP |= {
    "Dockerfile",
    "batch",
    "benchmarks",
    "data",
    "environment.yml",
    "notebooks",
    "profiles",
    "pyproject.toml",
    "requirements.lock",
}
TOP |= {"results", "tests"}
README = PROJECT / "README.md"


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def tracked() -> list[str]:
    """Paths that git tracks; a copy without its history has nothing to check."""
    done = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("git, or this folder's history, is missing")
    return done.stdout.splitlines()


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.M))


def locked() -> dict[str, list[str]]:
    """{package: versions} of requirements.lock; several where markers choose between them."""
    found: dict[str, list[str]] = {}
    for name, number in re.findall(r"^([\w.-]+)==([^\s;\\]+)", read("requirements.lock"), flags=re.M):
        found.setdefault(_plain(name), []).append(number)
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_pins_every_package_by_hash_and_names_no_host():
    """Each entry ends with at least one sha256; a mirror, an index or a path in it would break other machines."""
    text = read("requirements.lock")
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 100
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]
    for forbidden in ("://", "file:", "--index", "--find-links", "--extra-index"):
        assert forbidden not in text


def test_every_direct_dependency_has_a_reason_and_is_locked():
    """pyproject.toml: a comment on each line of the two lists, and the package in requirements.lock."""
    text = read("pyproject.toml")
    project = tomllib.loads(text)
    names = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    lock = locked()
    for line in names:
        name = re.match(r"[\w.-]+", line)[0]
        assert _plain(name) in lock, f"{name} is not in requirements.lock; run make lock"
        assert re.search(rf'^\s+"{re.escape(line)}",\s+# \w', text, flags=re.M), f"{line} has no reason"


def test_what_runs_here_is_what_the_lock_says():
    """The numbers belong to these versions; `make install` would give them."""
    lock = locked()
    for name in ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "scikit-image", "pandas"):
        assert version(name).split("+")[0] in lock[name]


def test_conda_installs_the_same_lock():
    """environment.yml names Python and the lock, and no package of its own that could differ from it."""
    found = yaml.safe_load(read("environment.yml"))
    (pip,) = [d for d in found["dependencies"] if isinstance(d, dict)]
    assert pip["pip"] == ["--require-hashes", "-r requirements.lock"]
    python, other = [d for d in found["dependencies"] if not isinstance(d, dict)]
    assert other == "pip"
    required = tomllib.loads(read("pyproject.toml"))["project"]["requires-python"]
    assert python.replace("python=", ">=") == required
    assert "nodefaults" in found["channels"]


def test_every_line_that_ci_runs_is_one_make_target():
    workflows = [yaml.safe_load(p.read_text()) for p in (PROJECT / ".github/workflows").glob("*.yml")]
    runs = [step["run"] for w in workflows for job in w["jobs"].values() for step in job["steps"] if "run" in step]
    assert len(runs) >= 4
    for line in runs:
        assert re.fullmatch(r"make [a-z-]+", line), line
        assert line.split()[1] in targets(), line


def test_ci_calls_the_readme_s_test_command_and_the_linter():
    lines = read(".ci/run").splitlines()
    assert [x for x in lines if x.startswith("make")] == ["make test", "make lint"]
    assert "set -euo pipefail" in lines
    assert (PROJECT / ".ci/run").stat().st_mode & 0o111
    assert "make test" in read("README.md")


def test_every_make_command_of_the_pages_exists():
    for page in ("README.md", "results/README.md", "data/README.md"):
        named = set(re.findall(r"\bmake ([a-z-]+)`", read(page))) | set(
            re.findall(r"^make ([a-z-]+)", read(page), re.M)
        )
        assert named <= targets(), page


def test_every_file_that_the_readme_links_exists():
    """Those that `make reference` writes are there once it has run."""
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8"))
    assert len(links) > 5
    missing = [x for x in links if not (PROJECT / x).exists() and not x.startswith("results/reference/")]
    assert missing == []


def test_the_readme_s_table_is_the_reference_table():
    """No number on the first page is typed by hand: between the markers stands results/reference/tables/readme.md."""
    shown = re.search(r"<!-- table:begin -->\n(.*?)<!-- table:end -->", README.read_text(encoding="utf-8"), re.S)
    assert shown, "README.md has lost its table markers"
    source = PROJECT / "results/reference/tables/readme.md"
    if not source.is_file():
        pytest.skip(f"{source} is missing; make reference writes it")
    assert shown[1].strip() == source.read_text(encoding="utf-8").strip()


def test_the_top_level_holds_nothing_else():
    assert {path.split("/")[0] for path in tracked()} <= TOP


def test_no_weights_data_or_large_files_are_tracked():
    """Pictures belong to their owners, weights come from their hosts: nothing above 2 MB, no model files, no data."""
    for path in tracked():
        assert not path.endswith((".safetensors", ".pt", ".pth")), path
        assert not path.startswith("data/") or path == "data/README.md", path
        assert not (PROJECT / path).is_file() or (PROJECT / path).stat().st_size <= LARGEST, path


def test_files_and_functions_stay_short():
    """Nobody reads a file of 400 lines or a function of 50 in one go."""
    for path in (PROJECT / "adlib").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 50, f"{path}: {node.name}"


def test_the_command_line_answers_without_loading_torch():
    """`python -m adlib --help` must be immediate; importing torch alone takes seconds."""
    code = "import sys, adlib.__main__; print([m for m in ('torch', 'timm', 'pandas', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["local", "slurm", "kubernetes"])
def test_profiles_are_readable(name):
    """Flag names without dashes; sacct without accounting would make SLURM batches wait for ever."""
    found = yaml.safe_load(read(f"profiles/{name}/config.yaml"))
    assert found["executor"] == name
    if name == "slurm":
        assert found["slurm-status-command"] == "squeue"


@pytest.mark.parametrize("path", sorted((PROJECT / "batch").glob("*.yml")), ids=lambda p: p.stem)
def test_batch_files_are_lists_of_entries(path):
    """The ones that need no downloaded data are expanded in test_batch.py."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert entries is None or all(("method" in e) != ("notebook" in e) for e in entries)


def test_licence_and_citation_agree():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    citation = yaml.safe_load(read("CITATION.cff"))
    assert read("LICENSE").startswith("MIT License")
    assert (citation["license"], citation["version"]) == (project["license"], project["version"])
