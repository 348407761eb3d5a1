"""Saving and loading: round trips, damage, and what is never executed."""

import json
import os
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefroute import ConfigurationError, PersistenceError, Router, RouterNotFoundError, load_router
from prefroute.persistence import SavedRouter, read_tensors, validated, write_atomically, write_tensors
from prefroute.testing import FixedRouter


class ConstantRouter(Router):
    router_type = "test-constant"

    def __init__(self, value: float) -> None:
        self.value = value

    def win_probability(self, prompts: Any) -> Any:
        return np.full(len(prompts), self.value)

    def _to_saved(self, folder: Path) -> SavedRouter:
        return SavedRouter(settings={"note": "naïve"}, tensors={"value": np.array([self.value])})

    @classmethod
    def _from_saved(cls, saved: SavedRouter, folder: Path) -> "ConstantRouter":
        return cls(float(saved.tensors["value"][0]))


def saved(folder: Path, threshold: float | None = 0.25) -> Path:
    router = ConstantRouter(0.75)
    router.threshold = threshold
    router.save_pretrained(folder)
    return folder


def edit(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_router_of_ones_own_survives_the_round_trip(tmp_path: Path) -> None:
    folder = saved(tmp_path / "new" / "folder")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "router.safetensors"]
    router = ConstantRouter.from_pretrained(folder)
    assert (router.value, router.threshold) == (0.75, 0.25)
    assert router.route("x").route == "strong"
    assert ConstantRouter.from_pretrained(str(saved(tmp_path / "none", threshold=None))).threshold is None


def test_saving_again_replaces_the_router_and_leaves_other_files(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("my card")
    saved(tmp_path)
    saved(tmp_path, threshold=0.9)
    assert ConstantRouter.from_pretrained(tmp_path).threshold == 0.9
    assert (tmp_path / "README.md").read_text() == "my card"


def test_a_router_that_cannot_be_saved_says_so_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(PersistenceError, match="FixedRouter cannot be saved"):
        FixedRouter().save_pretrained(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PersistenceError, match="cannot write the router to"):
        ConstantRouter(0.5).save_pretrained(tmp_path / "file")


@pytest.mark.parametrize("name", ["", 5, 0.5])
def test_what_names_no_router_is_told(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="loaded by folder or hub id, got"):
        load_router(name)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "nowhere", "./no/where/at/all", "a b/c", Path("owner/name")])
def test_a_missing_router_is_told(name: Any) -> None:
    with pytest.raises(RouterNotFoundError, match="no saved router at"):
        load_router(name)


def test_a_file_in_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "router").write_text("")
    with pytest.raises(RouterNotFoundError, match=r"router is a file; a saved router is a folder with config\.json"):
        load_router(tmp_path / "router")


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_text("")
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing \(found: model\.bin\)"):
        load_router(tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "cannot be read"),
        ("[]", "not of prefroute"),
        ('{"model_type": "bert"}', "not of prefroute"),
        ('{"format": "prefroute", "format_version": 99}', "format_version 99, this prefroute reads 1 to 1; update"),
        ('{"format": "prefroute", "format_version": "1"}', "format_version '1'"),
        ('{"format": "prefroute", "format_version": true}', "format_version True"),
        ('{"format": "prefroute", "format_version": 1, "router_type": "os.system"}', "router_type 'os.system'; known:"),
        ('{"format": "prefroute", "format_version": 1}', "router_type None"),
        ("\udcff", "cannot be read"),
        ("[" * 200_000, "cannot be read"),
    ],
)
def test_a_damaged_config_is_told(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(PersistenceError, match=problem):
        load_router(tmp_path)


def test_a_wrong_class_or_field_is_told(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    with pytest.raises(PersistenceError, match="A router of your own is loaded with its class's from_pretrained"):
        load_router(folder)
    edit(folder, threshold="high")
    with pytest.raises(PersistenceError, match=r"config\.json: threshold must be a finite number"):
        ConstantRouter.from_pretrained(folder)
    edit(folder, threshold=10**400)
    with pytest.raises(PersistenceError, match=r"config\.json: threshold must be a finite number"):
        ConstantRouter.from_pretrained(folder)
    edit(folder, threshold=0.5, settings=[])
    with pytest.raises(PersistenceError, match="settings must be an object, got list"):
        ConstantRouter.from_pretrained(folder)


def test_damaged_tensors_are_told(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    bfloat16 = json.dumps({"value": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    unknown = len(bfloat16).to_bytes(8, "little") + bfloat16 + b"\0\0"
    for damage in (b"", b"\x80\x04pickle", (folder / "router.safetensors").read_bytes()[:-3], unknown):
        (folder / "router.safetensors").write_bytes(damage)
        with pytest.raises(PersistenceError, match=r"router\.safetensors cannot be read"):
            ConstantRouter.from_pretrained(folder)


def test_parts_of_two_routers_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a")
    other = ConstantRouter(0.5)
    other.save_pretrained(tmp_path / "b")
    (tmp_path / "b" / "router.safetensors").replace(folder / "router.safetensors")
    with pytest.raises(PersistenceError, match=r"router\.safetensors is not the file that was saved with"):
        ConstantRouter.from_pretrained(folder)
    saved(folder)
    files = json.loads((folder / "config.json").read_text())["files"]
    for name in ("../b/config.json", "/etc/hostname", "a/../../b", "..\\b", "C:b", "\\b"):
        edit(folder, files={**files, name: "0"})
        with pytest.raises(PersistenceError, match="lies outside the folder"):
            ConstantRouter.from_pretrained(folder)
    for name in ("a\0b", "\ud800"):
        edit(folder, files={**files, name: "0"})
        with pytest.raises(PersistenceError, match="cannot be read"):
            ConstantRouter.from_pretrained(folder)
    edit(folder, files={**files, "gone.safetensors": "0"})
    with pytest.raises(PersistenceError, match=r"'gone\.safetensors' cannot be read"):
        ConstantRouter.from_pretrained(folder)
    edit(folder, files=None)
    with pytest.raises(PersistenceError, match="files must be an object, got NoneType"):
        ConstantRouter.from_pretrained(folder)


def test_a_full_disk_leaves_the_router_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path)
    written: list[Path] = []
    real = Path.write_bytes

    def write_bytes(path: Path, data: bytes) -> int:
        written.append(path)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(PersistenceError, match="No space left"):
        ConstantRouter(0.5).save_pretrained(folder)
    assert len(written) == 2
    assert ConstantRouter.from_pretrained(folder).value == 0.75
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "router.safetensors"]


def test_loading_while_another_thread_saves_gives_a_router_that_was_saved(tmp_path: Path) -> None:
    folder, done = saved(tmp_path), threading.Event()

    def save() -> None:
        for index in range(60):
            ConstantRouter(0.25 if index % 2 else 0.75).save_pretrained(folder)
        done.set()

    thread = threading.Thread(target=save)
    thread.start()
    loads = 0
    while not done.is_set() or not loads:
        try:
            router = ConstantRouter.from_pretrained(folder)
        except PersistenceError:
            continue
        loads += 1
        assert router.value in {0.25, 0.75}
    thread.join()


def test_a_download_cache_of_links_is_read(tmp_path: Path) -> None:
    folder, snapshot = saved(tmp_path / "blobs"), tmp_path / "snapshots"
    snapshot.mkdir()
    for file in folder.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert ConstantRouter.from_pretrained(snapshot).value == 0.75


def test_the_config_is_moved_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, moved = saved(tmp_path), []
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if path.parent.parent == folder:
            moved.append(path.name)
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    ConstantRouter(0.5).save_pretrained(folder)
    assert moved[-2:] == ["router.safetensors", "config.json"]


def test_threads_that_save_to_one_folder_leave_one_whole_router(tmp_path: Path) -> None:
    def save(value: float) -> None:
        for _ in range(20):
            ConstantRouter(value).save_pretrained(tmp_path)

    threads = [threading.Thread(target=save, args=(index / 8,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ConstantRouter.from_pretrained(tmp_path).value in {0.0, 0.125, 0.25, 0.375}


def test_a_refused_save_leaves_the_router_that_was_there(tmp_path: Path) -> None:
    class Nameless(ConstantRouter):
        router_type = ""

        def _to_saved(self, folder: Path) -> SavedRouter:
            (folder / "router.safetensors").write_bytes(b"")
            return super()._to_saved(folder)

    folder = saved(tmp_path)
    with pytest.raises(PersistenceError, match="Nameless cannot be saved"):
        Nameless(0.5).save_pretrained(folder)
    assert ConstantRouter.from_pretrained(folder).value == 0.75


def test_settings_that_are_no_json_are_refused_and_leave_the_router_that_was_there(tmp_path: Path) -> None:
    folder = saved(tmp_path)

    class Odd(ConstantRouter):
        def _to_saved(self, folder: Path) -> SavedRouter:
            return SavedRouter(settings={"odd": object()})

    with pytest.raises(PersistenceError, match="settings must be JSON values"):
        Odd(0.5).save_pretrained(folder)
    assert ConstantRouter.from_pretrained(folder).value == 0.75


def test_transposed_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.int8).reshape(2, 3).T
    write_tensors(tmp_path / "t.safetensors", {"a": array})
    assert np.array_equal(read_tensors(tmp_path / "t.safetensors")["a"], array)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.json"]


def test_a_hub_id_is_fetched_without_code_or_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = saved(tmp_path), []

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.append((repository, options))
        return str(folder)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    assert ConstantRouter.from_pretrained("owner/name").value == 0.75
    patterns = ["*.json", "*.safetensors", "*.npy", "*.txt", "*.model"]
    assert asked == [("owner/name", {"allow_patterns": patterns})]

    def refuse(repository: str, **_: Any) -> str:
        raise ConnectionError(repository)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=refuse))
    with pytest.raises(RouterNotFoundError, match="no folder owner/name, and the hub gave no router"):
        load_router("owner/name")


def test_settings_are_checked_field_by_field(tmp_path: Path) -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Settings:
        dimension: int
        scale: float = 1.0

    assert validated(Settings, {"dimension": 3}, tmp_path) == Settings(3)
    with pytest.raises(PersistenceError, match=r"dimension: .*valid integer.*; extra: "):
        validated(Settings, {"dimension": "3", "extra": 1}, tmp_path)
    with pytest.raises(PersistenceError, match="dimension: "):
        validated(Settings, {"dimension": True}, tmp_path)


class MappedRouter(ConstantRouter):
    """Keeps a file of its own, as routers with a large index do."""

    router_type = "test-mapped"

    def _to_saved(self, folder: Path) -> SavedRouter:
        np.save(folder / "index.npy", np.arange(300_000, dtype=np.float64))
        return super()._to_saved(folder)


def test_a_large_file_is_known_by_samples_and_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefroute.persistence._WHOLE", 2**20)
    MappedRouter(0.5).save_pretrained(tmp_path)
    files = json.loads((tmp_path / "config.json").read_text())["files"]
    assert [digest.startswith("sampled-") for digest in files.values()] == [True, False]
    index = tmp_path / "index.npy"
    whole = index.read_bytes()
    assert MappedRouter.from_pretrained(tmp_path).value == 0.5
    for damaged in (whole[:-1], whole + b"0", b"1" + whole[1:], whole[:-1] + b"1", np.arange(1, 300_001.0).tobytes()):
        index.write_bytes(damaged)
        with pytest.raises(PersistenceError, match=r"index\.npy is not the file that was saved"):
            MappedRouter.from_pretrained(tmp_path)


def test_baselines_are_had_by_name_and_take_no_embedder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("random", "prompt-length"):
        assert load_router(name).router_type == name
        with pytest.raises(ConfigurationError, match="uses no embedder"):
            load_router(name, embedder="static")
    load_router("prompt-length").save_pretrained("random")
    assert load_router("random").router_type == "prompt-length"  # a folder of that name comes first
    with pytest.raises(ConfigurationError, match="ConstantRouter uses no embedder"):
        ConstantRouter.from_pretrained(saved(tmp_path / "own"), embedder="static")


def test_what_only_the_replaced_router_had_is_removed(tmp_path: Path) -> None:
    load_router().save_pretrained(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    saved(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "notes.txt", "router.safetensors"]
    outside = tmp_path.parent / "outside"
    outside.write_text("mine too")
    edit(tmp_path, files={"../outside": "0", "gone": "0"})
    saved(tmp_path)
    assert outside.read_text() == "mine too"


def test_links_that_lead_elsewhere_are_neither_written_nor_removed_through(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "router"
    victim.mkdir()
    (victim / "precious").write_text("mine")
    saved(folder)
    (folder / "embedder").symlink_to(victim)
    edit(folder, files={"embedder/precious": "0"})
    saved(folder)
    assert (victim / "precious").read_text() == "mine"
    with pytest.raises(PersistenceError, match="leads out of"):
        load_router().save_pretrained(folder)
    assert [path.name for path in victim.iterdir()] == ["precious"]


def test_what_a_killed_save_left_is_removed_and_a_running_one_is_not(tmp_path: Path) -> None:
    old, young = tmp_path / ".saving-old", tmp_path / ".saving-young"
    for left in (old, young):
        left.mkdir()
        (left / "index.npy").write_text("half")
    os.utime(old, (0, 0))
    saved(tmp_path)
    assert (old.exists(), young.exists()) == (False, True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no name here")
def test_a_pipe_among_the_files_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    saved(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    edit(tmp_path, files={"pipe": "0", "router.safetensors": "0"})
    with pytest.raises(PersistenceError, match="'pipe' cannot be read: not a file"):
        ConstantRouter.from_pretrained(tmp_path)
