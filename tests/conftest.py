"""Eight virtual devices, strict ranks, no compilation cache, and where real data lies."""

import io
import os
import pathlib
import signal

os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        # Tests compile much and compute little.
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",  # each worker has one core
    ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background job; processes inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import bucket_servers
import hypothesis
import jax
import jaxtyping
import pytest
import sentencepiece
from jax.experimental.compilation_cache import compilation_cache

# Signatures are checked, shapes included, where arrays are computed or cut; as for mypy, an int is a float.
CHECKED = "data decoding inference losses models prompts scoring setup state step"
jaxtyping.install_import_hook(
    [f"jax_prompts.{name}" for name in CHECKED.split()],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)
hypothesis.settings.register_profile("tests", max_examples=50, deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("tests")

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_enable_compilation_cache", False)  # FLOPs and compilations are counted in tests


LONGEST = ("test_train.py", "test_contract.py", "test_leaves_contract.py", "test_bert_run.py", "test_main.py")


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def google_server():
    """Google's storage; one a process, for TensorStore keeps the first address that it is told."""
    with bucket_servers.google_storage() as proxy:
        yield proxy


@pytest.fixture
def google(google_server):
    """The same, without faults."""
    google_server.faults = lambda method, path: None
    yield google_server
    google_server.faults = lambda method, path: None


@pytest.fixture(scope="session")
def amazon():
    """Address of Amazon's storage."""
    with bucket_servers.amazon_storage() as address:
        yield address


@pytest.fixture
def unchecked():
    """Signatures as users have them, for what our own checks say of wrong types."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared():
    """The directory of real data and upstream goldens: $JAX_PROMPTS_SHARED, or `../shared` beside the checkout."""
    beside = pathlib.Path(__file__).parent.parent.parent / "shared"
    path = pathlib.Path(os.environ.get("JAX_PROMPTS_SHARED", beside))
    if not path.is_dir():
        pytest.skip(f"real data is not at {path}; set JAX_PROMPTS_SHARED")
    return path


@pytest.fixture(scope="session")
def compile_cache(tmp_path_factory):
    """Environment of programs that share what XLA compiled, which is most of a short run's time."""
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent  # which all workers have in common
    return {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1",  # the last counts
        "JAX_COMPILATION_CACHE_DIR": str(session / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """What the tests of a module compile alike is compiled once."""
    settings = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for values in (settings, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # JAX asks once whether there is one
        if values is settings:
            yield


@pytest.fixture(scope="session")
def train_vocabulary(tmp_path_factory):
    """`train_vocabulary(sentence) -> path`: a SentencePiece model of its characters and a few words, no sentinels."""

    def train(sentence: str) -> str:
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([sentence] * 20),
            model_writer=model,
            vocab_size=60,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
        path = tmp_path_factory.mktemp("vocabulary") / "small.model"
        path.write_bytes(model.getvalue())
        return str(path)

    return train
