"""Who may import whom: no circles, each heavy library where it belongs, arrows that point one way."""

import ast
import functools
import graphlib
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("jax_prompts", "tasks")


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


@functools.cache
def imports_of(module):
    """(name, whether it is imported with the module, not only by a function) of all that a module imports."""
    return frozenset(imports_in(ast.parse(MODULES[module].read_text())))


def imports_in(tree, at_import=True):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield (name if name in MODULES else node.module), at_import
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_in(node, at_import and not inside)


def libraries_of(module):
    return {name.partition(".")[0] for name, _ in imports_of(module)} - set(sys.stdlib_module_names)


def ours(module):
    return {name for name, _ in imports_of(module) if name in MODULES and name != module}


def modules(*prefixes):
    return sorted(m for m in MODULES if any(m == p or m.startswith(f"{p}.") for p in prefixes))


def test_there_are_no_circles():
    graph = {module: ours(module) for module in MODULES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_tasks_know_nothing_of_the_project():
    assert {module: ours(module) & set(modules("jax_prompts")) for module in modules("tasks")} == {
        module: set() for module in modules("tasks")
    }


def test_one_module_knows_gin():
    assert [module for module in MODULES if "gin" in libraries_of(module)] == ["jax_prompts.cli.gin_settings"]


TENSORFLOW = {"seqio", "tensorflow", "tensorflow_datasets"}
FILLING = {  # run where a token cache is filled, and imported there alone
    "jax_prompts.data.fill",
    "jax_prompts.data.token_rows",
    "jax_prompts.data.bert_features",
    "jax_prompts.data.numpy_vocabulary",
    "jax_prompts.data.verbalizer",
    "jax_prompts.data.registered",  # of tasks whose functions a cache cannot name
    "jax_prompts.data.tfds_access",
}


def test_tensorflow_belongs_to_tasks_and_to_filling_caches():
    assert {module for module in modules("jax_prompts") if libraries_of(module) & TENSORFLOW} == FILLING


def reached_at_import(module):
    """All modules that are imported with this one."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += [name for name, at_import in imports_of(module) if at_import and name in MODULES]
            waiting += [parent for parent in (module.rpartition(".")[0],) if parent in MODULES]
    return found


@pytest.mark.parametrize(
    "module", ["train", "evaluate", "inference.api", "inference.infer", "inference.task_split", "dry_run"]
)
def test_runs_import_no_tensorflow(module):
    reached = reached_at_import(f"jax_prompts.{module}")
    assert len(reached) > 20
    assert {each for each in reached if libraries_of(each) & TENSORFLOW} == set()
    assert not reached & set(modules("tasks"))  # a user's program may lie beside a folder of that name


WATCHING = {  # the clients of those who watch, each in one module
    "tensorboardX": "jax_prompts.watching.tensorboard",
    "wandb": "jax_prompts.watching.weights_and_biases",
}


@pytest.mark.parametrize("library", WATCHING)
def test_one_module_knows_each_who_watches(library):
    assert [module for module in MODULES if library in libraries_of(module)] == [WATCHING[library]]


def test_who_watches_knows_no_run():
    below = {"config", "runs", "display", "errors", "sweep", "distributed.processes", "storage.files"}
    for module in modules("jax_prompts.watching"):
        assert ours(module) <= {*modules("jax_prompts.watching"), *(f"jax_prompts.{name}" for name in below)}


def test_wandb_is_imported_where_a_run_asks_for_it():
    assert ("wandb", True) not in imports_of(WATCHING["wandb"])


PURE = {"jax", "flax", "numpy", "jaxtyping"}
FILES = tuple(f"jax_prompts.prompts{name}" for name in (".prompt_file", ".prompt_paths", ".store", ""))
COMPUTATIONS = [
    *modules("jax_prompts.models", "jax_prompts.losses", "jax_prompts.decoding"),
    *(module for module in modules("jax_prompts.prompts") if module not in FILES),
]


@pytest.mark.parametrize("module", COMPUTATIONS)
def test_computations_import_arrays_and_errors_alone(module):
    own = module.rpartition(".")[0]
    # Names of leaves are known to models and prompts.
    allowed = {
        "jax_prompts.errors",
        "jax_prompts.models.answers",
        *(modules(own) if own != "jax_prompts" else ()),
    }
    assert libraries_of(module) - {"jax_prompts"} <= PURE
    assert ours(module) <= allowed


def test_nothing_below_imports_the_command_line():
    top = {"jax_prompts.main", *modules("jax_prompts.cli")}
    assert {m for m in MODULES if m not in top and ours(m) & top} == set()


def test_studies_are_known_to_the_command_line_and_to_reports_alone():
    below = set(MODULES) - set(modules("jax_prompts.studies", "jax_prompts.cli", "jax_prompts.report"))
    assert {module for module in below if ours(module) & set(modules("jax_prompts.studies"))} == set()


def test_studies_of_files_load_no_model():
    reads = ["similarity", "rank", "convergence", "prompt_inputs", "curves"]
    answers = {"jax_prompts.evaluate", "jax_prompts.train", "jax_prompts.inference.engine"}
    for study in reads:
        assert not reached_at_import(f"jax_prompts.studies.{study}") & answers, study


def test_upstream_t5x_is_known_in_one_room_that_nothing_else_imports():
    room = modules("jax_prompts.upstream")
    assert {module for module in MODULES if "t5x" in libraries_of(module)} <= set(room)
    assert {module for module in set(MODULES) - set(room) if ours(module) & set(room)} == set()
    below = ("prompts", "models", "base_models", "errors", "upstream")
    allowed = modules(*(f"jax_prompts.{name}" for name in below))
    assert {module: ours(module) - set(allowed) for module in room} == {module: set() for module in room}


def test_errors_import_nothing():
    assert ours("jax_prompts.errors") == set() and libraries_of("jax_prompts.errors") == set()


PICTURES = {"altair", "pandas", "vl_convert"}  # of an extra


def test_pictures_are_made_in_one_room_and_imported_when_they_are_wanted():
    rooms = {module: libraries_of(module) & PICTURES for module in MODULES}
    assert {module for module, used in rooms.items() if used} <= set(modules("jax_prompts.report"))
    assert {
        name for module in rooms for name, at_import in imports_of(module) if at_import
    } & PICTURES == set()
