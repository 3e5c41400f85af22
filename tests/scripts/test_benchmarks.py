"""The benchmarks run, and say what they claim to; how fast things are is nobody's test."""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPTS = pathlib.Path(__file__).parent.parent.parent / "scripts"
SMALL = "--json --size t5_1_1_small --batch 2 --inputs 8 --prompt 2 --steps 1".split()
STAND_IN = f"""#!{sys.executable}
import json, sys
print("hello from a library")
print("{{}}", flush=True)
settings = json.loads(sys.argv[2])
for line in sys.stdin:
    what, arguments = json.loads(line)
    if what == "fail":
        sys.exit(3)
    print(json.dumps({{"what": what, "size": settings["size"], **arguments}}), flush=True)
"""


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    from peers import peer

    return peer


def test_a_peer_answers_and_its_end_is_noticed(peers, tmp_path):
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    peer = peers.Peer("peft", str(stand_in), argparse.Namespace(size="small"))
    assert peer.ask("step", texts=[[1]]) == {"what": "step", "size": "small", "texts": [[1]]}
    with pytest.raises(SystemExit, match="peft ended with 3"):
        peer.ask("fail")


def test_a_peer_is_given_rows_without_prompt_and_padding(peers):
    group = {
        "encoder_input_tokens": np.array([[[100, 101, 7, 8, 1], [100, 101, 9, 1, 0]]]),
        "decoder_target_tokens": np.array([[[5, 1], [1, 0]]]),
        "decoder_loss_weights": np.array([[[1, 1], [1, 0]]]),
    }
    assert peers.rows_of([group], vocab_size=100) == {"texts": [[7, 8, 1], [9, 1]], "targets": [[5, 1], [1]]}


def report(script, *arguments):
    done = subprocess.run([sys.executable, SCRIPTS / script, *arguments], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_method_that_the_size_has_not_is_one_line():
    command = [sys.executable, SCRIPTS / "bench_step.py", "--size=micro", "--methods=adapter_drop"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    line = "bench_step.py: error: Adapter.first_layer is 5 and the model has layers 0 to 2: set it to one of these"
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == line


@pytest.mark.slow
def test_step():
    found = report("bench_step.py", *SMALL)
    assert found["examples_per_second"] == pytest.approx(2 / found["seconds_per_step"])
    assert found["share_of_matrix_product_rate"] == pytest.approx(
        found["limit_seconds"] / found["seconds_per_step"]
    )
    assert found["weights_gigabytes"] == pytest.approx(4 * 76_961_152 / 1e9)
    assert found["tuned_parameters"] == 2 * 512


@pytest.mark.slow
def test_members():
    found = report("bench_members.py", *SMALL, "--members", "3")["members"]
    alone, three = found["1"], found["3"]
    assert alone["relative_to_as_many_alone"] == 1
    assert three["tuned_parameters"] == alone["tuned_parameters"]
    assert 2.5 < three["step_gflop"] / alone["step_gflop"] < 3.5


@pytest.mark.slow
def test_memory():
    found = report(
        "bench_memory.py", "--json", "--batch 2 --inputs 8 --prompt 2", "--dtype bfloat16 --batch 2"
    )
    wide, narrow = found.values()
    assert wide["weights_gigabytes"] == 2 * narrow["weights_gigabytes"]
    assert wide["peak_gigabytes"] > wide["weights_gigabytes"]


@pytest.mark.slow
def test_attention_says_what_a_device_lacks():
    found = report("bench_attention.py", "--lengths", "16", "--heads", "2", "--batch", "1", "--steps", "2")
    seconds = found["seconds"]["16"]
    assert seconds["xla"] > 0 and seconds["limit_seconds"] > 0
    if found["device"] == "cpu":
        assert "cudnn" in str(seconds["cudnn"]).lower()
