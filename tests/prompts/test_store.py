"""The prompt store: what goes in comes out, many writers at once, writers that are killed, damage that is named."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import uuid
import warnings

import numpy as np
import pytest
from safetensors.numpy import save

from jax_prompts.errors import ConfigError, RunError, SettingWarning
from jax_prompts.main import main
from jax_prompts.prompts.prompt_file import PromptMetadata, load_prompt, save_prompt
from jax_prompts.prompts.store import PromptStore
from jax_prompts.storage import files

ROOT = pathlib.Path(__file__).parents[2]
PROMPT_PD = np.arange(12, dtype=np.float32).reshape(3, 4)


def metadata(**fields):
    known = {
        "method": "Residual",
        "base_model": "t5_1_1_base gs://a/base",
        "metric": "accuracy",
        "score": 80.0,
    }
    return PromptMetadata(**{**known, "task": "super_glue_rte", "model_fingerprint": "aaaa", **fields})


@pytest.fixture
def prompt(tmp_path):
    """`prompt(**metadata) -> path` of a new prompt file."""

    def make(**fields):
        path = tmp_path / f"{uuid.uuid4().hex}.safetensors"
        save_prompt(path, PROMPT_PD, metadata(**fields))
        return path

    return make


@pytest.fixture(params=["path", "memory"])
def store(request, tmp_path):
    return PromptStore(
        str(tmp_path / "store") if request.param == "path" else f"memory://{uuid.uuid4().hex}/store/"
    )


@pytest.fixture
def local(tmp_path):
    return PromptStore(str(tmp_path / "store"))


def test_what_goes_in_comes_out(store, prompt):
    path = prompt(score=float("nan"), extra={"note": "kept é"}, labels=("no", "yes"))
    entry = store.add("rte-1", path)
    assert store.list() == (entry,) or np.isnan(store.list()[0].metadata.score)
    assert (entry.length, entry.width, entry.size) == (3, 4, path.stat().st_size)
    assert files.read(store.path("rte-1"), 10**6) == path.read_bytes()
    prompt_PD, metadata = load_prompt(store.path("rte-1"))
    np.testing.assert_array_equal(prompt_PD, PROMPT_PD)
    assert metadata.labels == ("no", "yes") and metadata.extra == {"note": "kept é"}
    assert store.verify().whole == ("rte-1",)
    again = PromptStore(store.url)
    again.add("copy", store.path("rte-1"))  # from a URL
    assert [entry.name for entry in again.list()] == ["copy", "rte-1"]
    store.remove("rte-1")
    assert [entry.name for entry in store.list()] == ["copy"]
    assert len(files.listing(store.url)) == 2


def test_find_meets_every_condition_and_puts_the_best_first(store, prompt):
    rows = {
        "a": {"score": 80.0},
        "b": {"score": 90.0, "task": "super_glue_cb"},
        "c": {
            "score": 85.0,
            "metric": "f1",
            "base_model": "t5_1_1_xxl gs://a/xxl",
            "model_fingerprint": "bbbb",
        },
        "d": {"score": None, "method": "PromptTuning"},
        "e": {"score": float("nan")},
    }
    for name, fields in rows.items():
        store.add(name, prompt(**fields))

    def found(**conditions):
        return "".join(entry.name for entry in store.find(**conditions))

    assert found() == "bcade"
    assert found(task="super_glue_rte") == "cade"
    assert found(task="*_cb") == "b" and found(task="cb") == ""
    assert found(model="t5_1_1_xxl") == found(model="*/xxl") == found(fingerprint="bbbb") == "c"
    assert found(metric="f1") == "c" and found(method="PromptTuning") == "d"
    assert found(min_score=85) == "bc" and found(min_score=85, task="*rte") == "c"


def test_a_name_is_taken_once(store, prompt):
    first, second = prompt(step=1), prompt(step=2)
    store.add("a", first)
    with pytest.raises(ConfigError, match="has a prompt a already"):
        store.add("a", second)
    path = store.path("a")
    assert files.read(path, 10**6) == first.read_bytes()
    store.add("a", second, replace=True)
    assert files.read(store.path("a"), 10**6) == second.read_bytes() and store.path("a") != path
    assert store.verify().unknown == () and len(files.listing(store.url)) == 2


def test_of_writers_of_one_name_that_meet_one_wins(store, prompt, monkeypatch):
    """Both find the name free; the entry decides, and the loser leaves nothing."""
    paths = [prompt(step=step) for step in range(4)]
    meet = threading.Barrier(len(paths))
    write = files.write

    def together(path, content, *, replace=True):
        if path.endswith(".json"):
            meet.wait()
        write(path, content, replace=replace)

    monkeypatch.setattr(files, "write", together)
    won, lost = [], []

    def add(path):
        try:
            won.append(store.add("a", path))
        except ConfigError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=add, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and len(lost) == 3
    assert store.list() == tuple(won) and store.verify().whole == ("a",)
    assert len(files.listing(store.url)) == 2


def test_an_entry_whose_answer_was_lost_is_ones_own(store, prompt, monkeypatch):
    """Libraries of object stores send a write again when its answer is lost, and then meet what they wrote."""
    write = files.write

    def twice(path, content, *, replace=True):
        write(path, content, replace=replace)
        write(path, content, replace=replace)

    monkeypatch.setattr(files, "write", twice)
    entry = store.add("a", prompt())
    assert store.list() == (entry,) and store.verify().whole == ("a",)


ADD_MANY = """
import sys
from jax_prompts.prompts.store import PromptStore
store = PromptStore(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
number = 0
while number < int(sys.argv[4]):
    store.add(f"{sys.argv[3]}-{number}", sys.argv[2])
    print(number, flush=True)
    number += 1
"""


def writers(store, path, names, count):
    """Processes that add `NAME-0`, `NAME-1`, ... and print each number once it is in; all start together."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    made = [
        subprocess.Popen([sys.executable, "-c", ADD_MANY, store.url, str(path), name, str(count)],
                         env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in names
    ]  # fmt: skip
    for process in made:
        assert process.stdout.readline() == "ready\n"
    for process in made:
        process.stdin.write("\n")
        process.stdin.flush()
    return made


def close(processes):
    for process in processes:
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # killed before it read
            process.stdin.close()


def test_processes_that_write_at_once_lose_nothing(local, prompt):
    made = writers(local, prompt(), "abcd", 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a reader never sees half an entry
        while any(process.poll() is None for process in made):
            if os.path.isdir(local.url):
                local.list()
    assert all(process.wait() == 0 for process in made)
    close(made)
    wanted = {f"{name}-{number}" for name in "abcd" for number in range(50)}
    assert {entry.name for entry in local.list()} == wanted
    found = local.verify()
    assert set(found.whole) == wanted and not (found.damaged or found.missing or found.unknown)


def test_a_writer_that_is_killed_leaves_a_sound_store(local, prompt):
    made = writers(local, prompt(), "abc", 10**6)
    for process in made:
        for _ in range(20):
            process.stdout.readline()
        process.kill()
    done = {
        f"{name}-{number}"
        for name, process in zip("abc", made, strict=True)
        for number in [*range(20), *map(int, process.stdout.read().split())]
    }
    for process in made:
        process.wait()
    close(made)
    found = local.verify()
    assert done <= set(found.whole) and not (found.damaged or found.missing)
    assert len(set(found.whole) - done) <= 3  # in, but not yet told
    assert len(found.unknown) <= 6  # of each writer a prompt without its entry, and what it was writing


@pytest.mark.slow
def test_what_killed_writers_left_is_cleaned_up_and_nothing_else(local, prompt, capsys):
    path = prompt()
    made = writers(local, path, "abcdefgh", 10**6)
    for number, process in enumerate(made):
        for _ in range(number):
            process.stdout.readline()
        process.kill()
    for process in made:
        process.wait()
    close(made)
    local.add("x", path)
    before = {entry.name for entry in local.list()}
    local.add("damaged", path)
    folder = pathlib.Path(local.url)
    (folder / "damaged.json").write_text("{}")
    (folder / "x.0123456789ab.safetensors").write_bytes(b"half")  # of a replacement
    left = {
        "x.0123456789ab.safetensors",
        f".new.0123456789ab.safetensors.{'0' * 32}.tmp",
        f".z.json.{'0' * 32}.tmp",
    }
    for file in left:
        (folder / file).write_bytes(b"half")
    strange = {"notes.txt", ".hidden.tmp", "x.safetensors", f".notes.txt.{'0' * 32}.tmp"}
    for file in strange:
        (folder / file).write_bytes(b"mine")
    found = local.verify()
    with pytest.raises(SystemExit):  # for the damaged one
        main(["store", "verify", local.url, "--clean"])
    cleaned = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert left <= set(cleaned["removed"]) <= set(found.unknown)
    (kept,) = folder.glob("damaged.*.safetensors")
    assert set(cleaned["unknown"]) == {*strange, kept.name}
    assert set(cleaned["whole"]) == set(found.whole) == before and not cleaned["missing"]
    for name in before:
        assert pathlib.Path(local.path(name)).read_bytes() == path.read_bytes()


def test_what_a_writer_under_way_has_written_is_left(local, prompt, monkeypatch):
    """Its file is there and no entry names it yet; only what is older than any writer goes."""
    local.add("a", prompt())
    folder = pathlib.Path(local.url)
    (folder / "b.0123456789ab.safetensors").write_bytes(b"old")
    os.utime(folder / "b.0123456789ab.safetensors", (0, 0))
    write, removed = files.write, []

    def meanwhile(path, content, *, replace=True):
        if str(path).endswith("c.json"):
            removed.extend(PromptStore(local.url).verify(clean=True).removed)
        write(path, content, replace=replace)

    monkeypatch.setattr(files, "write", meanwhile)
    local.add("c", prompt())
    assert removed == ["b.0123456789ab.safetensors"]
    assert local.verify().whole == ("a", "c") and local.verify().unknown == ()


def test_at_a_url_age_alone_tells_what_was_left(prompt, monkeypatch):
    store = PromptStore(f"memory://{uuid.uuid4().hex}")
    store.add("a", prompt())
    files.write(f"{store.url}/a.0123456789ab.safetensors", b"half")
    assert store.verify(clean=True).removed == ()
    monkeypatch.setattr("jax_prompts.prompts.store.LEFT_SECONDS", -1.0)
    found = store.verify(clean=True)
    assert found.removed == ("a.0123456789ab.safetensors",) and found.whole == ("a",)


@pytest.mark.parametrize("score", ["1e400", "-1e400", "NaN", "Infinity", "1" + "0" * 400])
def test_a_score_that_is_no_number_stops_nobody(local, prompt, tmp_path, capsys, score):
    (tmp_path / "bad").write_bytes(save({"prompt": PROMPT_PD}, {"score": score}))
    with pytest.raises(RunError, match="score"):
        local.add("bad", tmp_path / "bad")
    local.add("good", prompt(score=1.0))
    local.add("older", prompt(score=2.0))  # as if it had been taken by an older version
    entry = pathlib.Path(local.url) / "older.json"
    fields = json.loads(entry.read_text())
    fields["metadata"]["score"] = score
    entry.write_text(json.dumps(fields))
    for command in (["list"], ["find", "--min_score=0.5"]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an entry that cannot be read
            main(["store", command[0], local.url, *command[1:]])
        out, _ = capsys.readouterr()
        rows = json.loads(out.splitlines()[-1], parse_constant=lambda name: 1 / 0)["prompts"]
        assert "good" in [row["name"] for row in rows]
    assert [row["name"] for row in rows] == ["good"]


def test_what_was_done_before_an_error_is_told(local, prompt, tmp_path, capsys):
    def t5x(*argv):
        with pytest.raises(SystemExit) as stopped:
            main(["store", *map(str, argv)])
        out, err = capsys.readouterr()
        return stopped.value.code, out, err.splitlines()[-1]

    status, out, err = t5x(
        "add", local.url, f"a={prompt()}", f"b={prompt()}", f"c={tmp_path}/absent", f"d={prompt()}"
    )
    assert status == 2 and err.endswith(
        "absent does not exist: set it to a prompt file (added before it: a, b)"
    )
    assert [row["name"] for row in json.loads(out)["added"]] == ["a", "b"]
    status, out, err = t5x("remove", local.url, "a", "c", "b")
    assert status == 2 and err.endswith("(removed before it: a)") and json.loads(out)["removed"] == ["a"]
    status, out, err = t5x("add", local.url, f"b={prompt()}", f"e={prompt()}")
    assert (status, out) == (2, "") and "before it" not in err
    assert [entry.name for entry in local.list()] == ["b"]


def test_damage_is_named(local, prompt, capsys):
    for name in "abcdefg":
        local.add(name, prompt(step=ord(name)))
    folder = pathlib.Path(local.url)

    def entry_of(name):
        return folder / f"{name}.json"

    def file_of(name):
        return pathlib.Path(local.path(name))

    bits = bytearray(file_of("a").read_bytes())
    bits[-1] ^= 1
    file_of("a").write_bytes(bits)
    file_of("b").write_bytes(file_of("b").read_bytes()[:-1])
    file_of("c").unlink()
    entry_of("d").write_text(entry_of("d").read_text()[:-30])
    edited = json.loads(entry_of("e").read_text())
    edited["metadata"]["score"] = "99.0"
    entry_of("e").write_text(json.dumps(edited))
    (folder / "stray.safetensors").write_bytes(file_of("f").read_bytes())
    lost = next(path.name for path in folder.glob("d.*.safetensors"))

    found = local.verify()
    assert found.whole == ("f", "g") and found.missing == ("c",)
    assert found.damaged.keys() == {"a", "b", "d", "e"}
    assert all(f"{local.url}/{name}." in wrong for name, wrong in found.damaged.items())
    assert found.unknown == tuple(sorted([lost, "stray.safetensors"]))
    with pytest.warns(SettingWarning, match=r"d\.json is no entry"):
        assert [entry.name for entry in local.list()] == list("abcefg")

    with pytest.raises(SystemExit) as stopped:
        main(["store", "verify", local.url])
    out, err = capsys.readouterr()
    assert stopped.value.code == 1
    assert json.loads(out.splitlines()[-1])["missing"] == ["c"]
    assert err.splitlines()[-1] == "t5x store: 5 of 7 prompts are not whole: a, b, d, e, c"
    for line in ("damaged a: ", "missing c: ", "unknown stray.safetensors: "):
        assert line in err

    # What is damaged can be replaced or removed; without being told to, it is not overwritten.
    with pytest.raises(RunError, match=r"d\.json is no entry"):
        local.add("d", prompt())
    local.add("d", prompt(), replace=True)
    for name in "abce":
        local.remove(name)
    assert local.verify().whole == ("d", "f", "g") and not local.verify().damaged


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../../other.0123456789ab.safetensors"},
        {"file": "b.0123456789ab.safetensors"},
        {"file": 7},
        {"name": "b"},
        {"size": "many"},
        {"metadata": None},
        {"metadata": {"score": 3}},
        {"metadata": {"score": "high"}},
        {"more": 1},
    ],
)
def test_an_entry_from_elsewhere_reaches_no_other_file(local, prompt, change):
    local.add("a", prompt())
    entry = pathlib.Path(local.url) / "a.json"
    entry.write_text(json.dumps(json.loads(entry.read_text()) | change))
    with pytest.raises(RunError, match=r"a\.json"):
        local.path("a")
    before = files.listing(local.url)
    local.remove("a")
    assert files.listing(local.url) == before - {"a.json"}


def test_a_file_in_place_of_a_store_is_said(tmp_path, prompt):
    (tmp_path / "file").write_text("mine")
    for place in ("file", "file/below"):
        store = PromptStore(tmp_path / place)
        with pytest.raises(
            ConfigError, match=rf"a could not be added to .*{place} \(.*file is a file\): give a dir"
        ):
            store.add("a", prompt())


def test_a_store_that_does_not_answer_is_no_store_of_damaged_entries(monkeypatch, local, prompt):
    """Nothing is removed of what cannot be read just now."""
    local.add("a", prompt())
    before = files.listing(local.url)

    def silent(*_):
        raise TimeoutError("no answer in 25 s")

    with monkeypatch.context() as patched:
        patched.setattr(files, "read", silent)
        with pytest.raises(RunError, match="could not be read: no answer in 25 s"):
            local.remove("a")
    assert files.listing(local.url) == before


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 10**5, b"\xff", b"null", b'{"metadata": {}}'])
def test_an_entry_that_is_none_is_one_line(local, prompt, content):
    local.add("a", prompt())
    (pathlib.Path(local.url) / "a.json").write_bytes(content)
    assert "\n" not in local.verify().damaged["a"]


def test_what_cannot_be_is_refused(unchecked, store, prompt, tmp_path):
    with pytest.raises(ConfigError, match="no prompt store at"):
        store.list()
    store.add("rte", prompt())
    for name in ("", ".hidden", "a/b", "../a", "-flag", "a b", "x" * 101):
        with pytest.raises(ConfigError, match="cannot name a prompt"):
            store.add(name, prompt())
        with pytest.raises(ConfigError, match="has no prompt"):
            store.remove(name)
    for name in (5, None, b"a"):
        with pytest.raises(ConfigError, match="cannot name a prompt"):
            store.add(name, prompt())
        with pytest.raises(ConfigError, match="has no prompt"):
            store.path(name)
    for conditions in ({"task": 5}, {"min_score": "high"}, {"min_score": float("nan")}):
        with pytest.raises(ConfigError, match=r"is .*: give a"):
            store.find(**conditions)
    for missing in (store.path, store.remove):
        with pytest.raises(ConfigError, match="no prompt rtw; did you mean rte"):
            missing("rtw")
    (tmp_path / "none").write_bytes(b"no prompt")
    with pytest.raises(RunError, match="none is not a whole prompt file"):
        store.add("none", tmp_path / "none")
    with pytest.raises(ConfigError, match="absent does not exist"):
        store.add("absent", tmp_path / "absent")
    assert [entry.name for entry in store.list()] == ["rte"] and store.verify().unknown == ()


def test_no_space_left_leaves_the_store_as_it_was(local, prompt, monkeypatch):
    local.add("a", prompt())
    another = prompt()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"b could not be added to .*: No space left on device"):
        local.add("b", another)
    assert local.verify().whole == ("a",) and local.verify().unknown == ()


def test_the_command(tmp_path, prompt, capsys):
    store = str(tmp_path / "store")

    def t5x(*argv):
        main(["store", *map(str, argv)])
        out, err = capsys.readouterr()
        return json.loads(out.splitlines()[-1]), err

    added, _ = t5x("add", store, f"rte={prompt(score=float('nan'))}", f"cb={prompt(task='super_glue_cb')}")
    assert [row["name"] for row in added["added"]] == ["rte", "cb"]
    found, table = t5x("list", store)
    assert [row["name"] for row in found["prompts"]] == ["cb", "rte"]
    assert found["prompts"][1]["score"] is None and "super_glue_cb" in table
    found, table = t5x("find", store, "--task=*cb", "--min_score=80", "--model=t5_1_1_base")
    (row,) = found["prompts"]
    assert row["name"] == "cb" and load_prompt(row["path"])[1].task == "super_glue_cb"
    assert "super_glue_rte" not in table
    main(["inspect", f"file://{row['path']}"])
    assert json.loads(capsys.readouterr().out)["task"] == "super_glue_cb"
    assert t5x("verify", store)[0]["whole"] == ["cb", "rte"]
    assert t5x("remove", store, "cb", "rte")[0]["removed"] == ["cb", "rte"]
    assert t5x("list", store)[0]["prompts"] == []


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["store"], "ACTION"),
        (["store", "list"], "STORE"),
        (["store", "add", "s", "file"], "prompt file is not NAME=FILE"),
        (["store", "find", "s", "--min_score=high"], "--min_score"),
        (["store", "find", "s", "--tsk=x"], "unknown argument --tsk=x; did you mean --task"),
        (["store", "list", "s", "--gin.MODEL_DIR"], "--gin.MODEL_DIR is not --gin.NAME=VALUE"),
        (["store", "list", "s", "--gin.MODEL_DIR=y"], "--gin.MODEL_DIR=y means nothing here"),
        (["store", "list", ""], "argument STORE"),
        (["store", "list", "nowhere"], "no prompt store at nowhere"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(argv, words, capsys):
    with pytest.raises(SystemExit) as status:
        main(argv)
    assert status.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err
