"""What TensorBoard itself reads of runs."""

import sys
import types

import pytest

from jax_prompts.watching.hparams import Session
from jax_prompts.watching.tensorboard import TensorBoard

SUMMARY = {"last_step": 20}


@pytest.fixture(scope="module", autouse=True)
def without_tensorflow():
    """TensorBoard takes its own file readers, as it does where TensorFlow is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorboard.compat.notf", types.ModuleType("notf"))
        pytest.importorskip("tensorboard.plugins.hparams", reason="pip install -e '.[report]'")
        yield


def experiment(directory):
    """(hyperparameters with whether they differ, metrics, (settings, metrics) by session) of TensorBoard's HPARAMS."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(directory)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(directory))
    context = backend_context.Context(TBContext(data_provider=provider))
    where = RequestContext(), "experiment"
    found = context.experiment_from_metadata(
        *where, True, context.hparams_metadata(*where), context.hparams_from_data_provider(*where, limit=None)
    )
    columns = [api_pb2.ColParams(hparam=info.name) for info in found.hparam_infos]
    columns += [api_pb2.ColParams(metric=info.name) for info in found.metric_infos]
    request = api_pb2.ListSessionGroupsRequest(
        col_params=columns,
        slice_size=100,
        allowed_statuses=[api_pb2.STATUS_SUCCESS],
        aggregation_type=api_pb2.AGGREGATION_AVG,
    )
    groups = list_session_groups.Handler(RequestContext(), context, "experiment", request).run()
    return (
        {info.name: info.differs for info in found.hparam_infos},
        [info.name.tag for info in found.metric_infos],
        {
            group.name: (
                {
                    name: getattr(value, value.WhichOneof("kind"))
                    for name, value in group.hparams.items()
                    if value.WhichOneof("kind")
                },
                {metric.name.tag: (metric.value, metric.training_step) for metric in group.metric_values},
            )
            for group in groups.session_groups
        },
    )


def finished(directory, *sessions, summary=SUMMARY):
    board = TensorBoard(directory, 1)
    board.scalars(5, {"train/loss": 2.5})
    board.finish(sessions, summary)
    board.close(failed=False)


def test_the_hparams_tab_compares_runs_of_unlike_settings(tmp_path):
    finished(
        tmp_path / "a",
        Session(
            "hparams",
            {"task": "rte", "learning_rate": 0.3, "method.norm": True},
            {"best_metric": 75.5, "best_step": 10.0},
        ),
    )
    finished(
        tmp_path / "b",
        Session("member-0", {"task": "rte", "learning_rate": 0.1, "weight_decay": 0}, {"best_metric": 80.25}),
        Session("member-1", {"task": "rte", "learning_rate": 0.1, "weight_decay": 0.5}, {}),
    )
    differs, metrics, found = experiment(tmp_path)
    assert differs == {"learning_rate": True, "weight_decay": True, "task": False, "method.norm": False}
    assert metrics == ["best_metric", "best_step"]
    assert found == {
        "a/tensorboard/hparams": (
            {"task": "rte", "learning_rate": 0.3, "method.norm": True},
            {"best_metric": (75.5, 20), "best_step": (10.0, 20)},
        ),
        "b/tensorboard/member-0": (
            {"task": "rte", "learning_rate": 0.1, "weight_decay": 0.0},
            {"best_metric": (80.25, 20)},
        ),
        "b/tensorboard/member-1": ({"task": "rte", "learning_rate": 0.1, "weight_decay": 0.5}, {}),
    }


def test_a_run_that_ends_again_has_its_last_end_alone(tmp_path):
    finished(tmp_path, Session("hparams", {"steps": 20}, {"best_metric": 75.0}))
    finished(
        tmp_path,
        Session("hparams", {"steps": 40}, {"best_metric": 80.0, "test/f1": 1}),
        summary={"last_step": 40},
    )
    _, _, found = experiment(tmp_path)
    assert found == {
        "tensorboard/hparams": ({"steps": 40.0}, {"best_metric": (80.0, 40), "test/f1": (1.0, 40)})
    }
    assert len(list((tmp_path / "tensorboard" / "hparams").iterdir())) == 1


def test_numbers_past_the_step_that_a_run_goes_on_from_do_not_count(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    before = TensorBoard(tmp_path, 1)
    for step in (5, 10, 15):
        before.scalars(step, {"train/loss": float(step)})
    before.close(failed=True)
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.rename(file.with_name("events.out.tfevents.1000000000.host"))  # named by second, else the same
    after = TensorBoard(tmp_path, 11)
    after.scalars(15, {"train/loss": 1.5})
    after.close(failed=False)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/loss")
    assert [(event.step, event.value) for event in events] == [(5, 5.0), (10, 10.0), (15, 1.5)]
