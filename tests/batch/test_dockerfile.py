"""The image is not built in tests; what stands in its recipe is read."""

import re

import yaml

from adlib.common.paths import PROJECT

TEXT = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
STEPS = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", TEXT, flags=re.M)).splitlines()


def test_the_image_has_the_python_and_the_packages_of_the_lock():
    """A slim Python that pyproject.toml allows; each package by hash; the project itself without any other package."""
    assert [step for step in STEPS if step.startswith("FROM")] == ["FROM python:3.11-slim"]
    installs = [step for step in STEPS if "pip install" in step]
    assert len(installs) == 2
    assert "--require-hashes -r requirements.lock" in installs[0]
    assert "--no-deps" in installs[1]


def test_everything_that_the_image_copies_is_there_and_none_of_it_is_the_user_s():
    """Named one by one, so that no data, results, environments or hidden files get in."""
    copied = [name for step in STEPS if step.startswith("COPY") for name in step.split()[1:-1]]
    assert {"adlib", "notebooks", "profiles", "batch", "Snakefile", "pyproject.toml"} <= set(copied)
    for name in copied:
        assert (PROJECT / name).exists(), name
        assert not name.startswith((".", "data", "results")), name


def test_the_image_runs_the_command_line_as_an_ordinary_user_on_mounted_roots():
    """All four ADLIB_* roots are volumes; the last USER is not root."""
    assert [step for step in STEPS if step.startswith("USER")] == ["USER adlib"]
    roots = dict(re.findall(r"(ADLIB_\w+)=(\S+)", TEXT))
    assert set(roots) == {"ADLIB_DATA", "ADLIB_WEIGHTS", "ADLIB_RESULTS", "ADLIB_CACHE"}
    (volumes,) = [step for step in STEPS if step.startswith("VOLUME")]
    assert sorted(yaml.safe_load(volumes.removeprefix("VOLUME "))) == sorted(roots.values())
    assert 'ENTRYPOINT ["python", "-m", "adlib"]' in STEPS


def test_the_image_holds_no_secret():
    assert not re.search(r"(?i)token|password|secret|api_?key|credential", TEXT)


def test_the_kubernetes_profile_says_how_to_build_its_image():
    text = (PROJECT / "profiles/kubernetes/config.yaml").read_text(encoding="utf-8")
    image = yaml.safe_load(text)["container-image"]
    assert re.search(rf"^#.*docker build .*-t {re.escape(image)} \.", text, re.M)
