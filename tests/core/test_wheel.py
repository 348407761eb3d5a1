"""The wheel: what is in it, and that it works in an environment with nothing else."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("prefroute/", "langchain_router/", "llamaindex_router/")
LIMIT = 8_000_000  # bytes of bundled files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    # --no-isolation: the build backend is a pinned dependency of the tests, so nothing is fetched for it.
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_it_holds_the_three_packages_and_the_bundled_files_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {info.filename: info.file_size for info in archive.infolist()}
    outside = [name for name in files if not name.startswith(PACKAGES) and ".dist-info/" not in name]
    assert outside == []
    for package in PACKAGES:
        assert f"{package}__init__.py" in files
        assert f"{package}py.typed" in files
    bundled = {name: size for name, size in files.items() if name.startswith("prefroute/pretrained/")}
    assert {"prefroute/pretrained/default/config.json", "prefroute/pretrained/default/README.md"} <= set(bundled)
    assert sum(bundled.values()) <= LIMIT
    kinds = {Path(name).suffix for name in files if name.startswith(PACKAGES)}
    assert kinds <= {".py", ".typed", ".json", ".safetensors", ".md", ".j2", ".txt"}
    assert any(name.endswith("licenses/NOTICE") for name in files)


def test_installed_alone_it_routes_a_prompt(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel]
    installed = subprocess.run(install, check=False, capture_output=True, text=True)
    assert installed.returncode == 0, installed.stderr
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "prefroute", "route", "--json", "Prove that there is no largest prime."],
        cwd=tmp_path,
        env={},
        check=True,
        capture_output=True,
        text=True,
    )
    decision = json.loads(done.stdout)
    assert decision["reason"] == "score"
    assert 0 <= decision["score"] <= 1
    demo = subprocess.run(
        [tmp_path / "venv" / "bin" / "prefroute", "demo"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert "prefroute[langchain]" in demo.stdout
    assert "prefroute[llamaindex]" in demo.stdout
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True, text=True)
    present = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert present.isdisjoint({"torch", "transformers", "openai", "langchain-core", "llama-index-core", "pandas"})
