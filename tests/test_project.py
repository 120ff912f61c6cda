"""The project's own promises: what is installed is what is locked, CI does what the README says, nothing lies about."""

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT
from test_rooms import FILES, ROOMS, room_of

import adlib
from adlib.batch.evidence import LARGEST

# design: what may stand at the top
TOP = {".ci", ".github", ".gitignore", "CITATION.cff", "LICENSE", "Makefile", "README.md", "Snakefile", "adlib"}
TOP |= {".pre-commit-config.yaml", "Dockerfile", "batch", "benchmarks", "data", "environment.yml", "notebooks"}
TOP |= {"profiles", "pyproject.toml", "requirements.lock", "results", "tests"}
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
    """pyproject.toml: a comment on each line of the three lists, and the package in requirements.lock."""
    lock = locked()
    for name, reason in reasons().items():
        assert _plain(name) in lock, f"{name} is not in requirements.lock; run make lock"
        assert reason, f"{name} has no reason"


def test_the_reasons_of_the_dependencies_are_true():
    """What has "not imported:" in its reason is imported nowhere in adlib/; each other one where it is said to be.

    "data, runs: ..." names exactly the rooms that import it, or the folders benchmarks and tests; without such a
    beginning, anywhere in adlib/.
    """
    development = {re.match(r"[\w.-]+", line)[0] for line in project()["optional-dependencies"]["dev"]}
    modules: dict[str, list[str]] = {}
    for module, packages in packages_distributions().items():
        for package in packages:
            modules.setdefault(_plain(package), []).append(module)
    for name, reason in reasons().items():
        if name in development:
            continue
        places = re.match(r"(?:[a-z]+, )*[a-z]+(?: and [a-z]+)?(?=: )", reason)
        files = _files(places[0] if places and not reason.startswith("not imported") else "adlib")
        imported = set(modules[_plain(name)])
        used = any(_imports(path) & imported for path in files)
        assert used != reason.startswith("not imported: "), f"{name}: {reason}"
        named = set(re.split(", | and ", places[0])) & set(ROOMS) if places else set()
        if named and used:
            importing = {room_of(path) for path in FILES if _imports(path) & imported}
            assert importing == named, f"{name} is imported by {sorted(importing)}"


def project() -> dict:
    return tomllib.loads(read("pyproject.toml"))["project"]


def reasons() -> dict[str, str]:
    """{package: its comment in pyproject.toml} of the dependencies and the extras."""
    lines = [*project()["dependencies"], *(x for extra in project()["optional-dependencies"].values() for x in extra)]
    text = read("pyproject.toml")
    comments = {line: re.search(rf'^\s+"{re.escape(line)}",\s+# (\w.*)$', text, flags=re.M) for line in lines}
    return {re.match(r"[\w.-]+", line)[0]: comment[1] if comment else "" for line, comment in comments.items()}


def _files(places: str) -> list[Path]:
    """Python files of "data, runs" or "benchmarks and tests"; a room is a file or a folder of adlib/."""
    files: list[Path] = []
    for place in re.split(", | and ", places):
        tops = [PROJECT / place, PROJECT / "adlib" / place, PROJECT / "adlib" / f"{place}.py"]
        files += [path for top in tops for path in ([top] if top.is_file() else top.rglob("*.py"))]
    assert files, f"{places} is no folder or room"
    return files


@functools.cache
def _imports(path: Path) -> set[str]:
    """Names of the top modules that a file imports anywhere, also by a text (import_module, find_spec)."""
    text = path.read_text(encoding="utf-8")
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and ("import_module(" in text or "find_spec(" in text)
        ):
            names.add(node.value)
    return {name.partition(".")[0] for name in names}


def test_uv_does_not_manage_the_environment():
    """`uv run` would resolve anew and make another .venv; the Makefile installs the lock."""
    assert tomllib.loads(read("pyproject.toml"))["tool"]["uv"] == {"managed": False}


def test_pre_commit_has_the_lock_s_versions_and_the_makefile_s_keys():
    hooks = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    versions = {
        repo["repo"].rpartition("/")[2].removesuffix("-pre-commit"): repo["rev"].removeprefix("v") for repo in hooks
    }
    assert versions == {name: locked()[name][0] for name in ("ruff", "nbstripout")}
    (strip,) = [hook for repo in hooks for hook in repo["hooks"] if hook["id"] == "nbstripout"]
    (keys,) = re.findall(r'^STRIP := --extra-keys "(.*)"$', read("Makefile"), flags=re.M)
    assert strip["args"] == ["--keep-id", "--extra-keys", keys]


def test_every_workflow_uses_the_same_current_major_of_an_action():
    """The majors of autumn 2026; older ones run on a Node that the runners drop."""
    texts = [p.read_text() for p in (PROJECT / ".github/workflows").glob("*.yml")]
    used = {line for text in texts for line in re.findall(r"uses: (\S+)", text)}
    assert used == {"actions/checkout@v6", "actions/setup-python@v6", "actions/upload-artifact@v7"}


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
    header, _, *rows = [line for line in shown[1].splitlines() if line.startswith("|")]
    assert len(rows) <= 6, "one screen; results/reference/README.md has the long table"
    assert header.count("|") == 6  # five columns


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
    """The ones that need no downloaded data are expanded in tests/batch/test_file.py."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert entries is None or all(("method" in e) != ("notebook" in e) for e in entries)


def test_licence_and_citation_agree():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert read("LICENSE").startswith("MIT License")
    assert (citation["license"], citation["version"]) == (project()["license"], adlib.__version__)


def test_the_citation_names_all_five_papers():
    """Each with authors, year and where it appeared."""
    papers = yaml.safe_load(read("CITATION.cff"))["references"]
    for word in ("Improved Mask Autoencoder", "Memory Enhancement", "SimpleNet", "DRAEM", "ValidFlow"):
        (paper,) = [paper for paper in papers if word in paper["title"]]
        assert len(paper["authors"]) >= 3
        assert paper["year"] in range(2021, 2025)
        assert paper.get("journal") or paper.get("collection-title")
    assert len(papers) == 5


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A folder with adlib as `pip install WHEEL` lays it down, made from the tracked files alone."""
    base = tmp_path_factory.mktemp("wheel")
    for name in tracked():
        if name.startswith("adlib/") or name in ("pyproject.toml", "README.md", "LICENSE"):
            (base / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, base / "source" / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(base), str(base / "source")]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (file,) = base.glob("adlib-*.whl")
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(base / "site"), str(file)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    return base / "site"


def installed(wheel: Path, home: Path, *argv: str) -> subprocess.CompletedProcess:
    """A command of the wheel's adlib from an empty folder, without any root set."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ADLIB_")}
    environment |= {"PYTHONPATH": str(wheel), "HOME": str(home), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "adlib", *argv]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)


def test_a_wheel_works_from_any_folder(wheel, tmp_path):
    """Two epochs on the embedded photographs, then what was printed and where it lies; nothing in site-packages."""
    before = sorted(path for path in wheel.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__")
    assert installed(wheel, tmp_path, "--version").stdout == f"adlib {adlib.__version__}\n"
    assert "CVPR 2023" in installed(wheel, tmp_path, "methods").stdout
    settings = ["--backbone", "tf_efficientnet_lite0", "--image-size", "64", "--resize", "none"]
    settings += ["--resize-mode", "squash", "--epochs", "2", "--eval-every", "0"]
    done = installed(wheel, tmp_path, "run", "simplenet", "textures", "brick", "--device", "cpu", *settings)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "adlib" / "results" / "runs" / "simplenet") in done.stdout
    done = installed(wheel, tmp_path, "list")
    assert "current simplenet/textures/brick/" in done.stdout, done.stderr
    done = installed(wheel, tmp_path, "check", "adlib/results", "--paper", "simplenet", "--allow-incomparable")
    assert "Traceback" not in done.stderr  # the printed numbers are in the wheel
    assert "textures" in installed(wheel, tmp_path, "data", "list").stdout
    after = sorted(path for path in wheel.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__")
    assert after == before


def test_a_wheel_says_what_needs_the_project_folder(wheel, tmp_path):
    done = installed(wheel, tmp_path, "batch", "batch/quick.yml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("adlib: adlib batch needs the project folder")
    assert done.stderr.count("\n") == 1
