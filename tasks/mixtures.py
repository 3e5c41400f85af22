"""Mixtures of tasks: a training set with the sets it is judged by, and many tasks at once.

A mixture's task takes part in the splits it has: `glue_mnli_v200` trains, `glue_mnli_matched_v200` is validated.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import seqio

from tasks import registration, selection, superglue, wsc  # noqa: F401  only what is registered can be mixed
from tasks.glue import VERSIONS
from tasks.qa import OUT_OF_DOMAIN

# Training examples, as T5 weights its tasks (Raffel et al. 2020); WSC's right referents; a ReCoRD pair an answer.
GLUE_SIZES = {
    "cola": 8_551,
    "sst2": 67_349,
    "mrpc": 3_668,
    "qqp": 363_849,
    "stsb": 5_749,
    "mnli": 392_702,
    "qnli": 104_743,
    "rte": 2_490,
}
SUPER_GLUE_SIZES = {
    "dpr_v001_simple": 1_322,
    "super_glue_wsc_v102_simple_train": 259,
    "super_glue_boolq_v102": 9_427,
    "super_glue_cb_v102": 250,
    "super_glue_copa_v102": 400,
    "super_glue_multirc_v102": 27_243,
    "super_glue_record_v102": 138_854,
    "super_glue_rte_v102": 2_490,
    "super_glue_wic_v102": 5_428,
}
LIMIT = 2**14  # of examples counted for a task, where a mixture is `limited`
HELD_OUT = 1.0  # the rate of tasks that only evaluate


def limited(task: seqio.Task, *, sizes: Mapping[str, float], limit: float) -> float:
    """A task's rate: its number of training examples, at most `limit` (Raffel et al. 2020, section 3.5.2)."""
    return min(sizes[task.name], limit)


_mix = functools.partial(registration.mix, family="mixtures")


def _equal(name: str, tasks: list[str]) -> None:
    _mix(name, dict.fromkeys(tasks, 1.0))


def _transfer(name: str, tuned: str, judged: list[str]) -> None:
    """Registers a mixture whose prompt is tuned and chosen on one task (Lester et al. 2021, section 5)."""
    _equal(name, [tuned, *judged])
    selection.choose_by(name, [tuned])


def _proportional(name: str, sizes: Mapping[str, float]) -> None:
    """Registers `name_proportional`, in proportion to sizes, and `name_limited`, with no size above LIMIT.

    Both also taskless.
    """
    for prefix in ("", "taskless_"):
        own = {prefix + task: size for task, size in sizes.items()}
        for ending, limit in {"proportional": float("inf"), "limited": LIMIT}.items():
            rate = functools.partial(limited, sizes=own, limit=limit)
            _mix(f"{prefix}{name}_{ending}", dict.fromkeys(own, rate))


for prefix in ("", "taskless_"):
    for version in VERSIONS:
        mnli = ("mnli", "mnli_mismatched", "mnli_matched")
        _equal(f"{prefix}glue_mnli_and_dev_{version}", [f"{prefix}glue_{task}_{version}" for task in mnli])
    _equal(
        f"{prefix}super_glue_wsc_and_dev_v102_simple",
        [f"{prefix}super_glue_wsc_v102_simple_{part}" for part in ("train", "eval")],
    )
    for tuned, judged in (("qqp", "mrpc"), ("mrpc", "qqp")):
        transfer = f"{prefix}glue_{judged}_from_{tuned}"
        _transfer(f"{transfer}_zeroshot_v002", f"{prefix}glue_{tuned}_v002", [f"{transfer}_v002"])

_OTHERS = [f"mrqa_{task}_v100_examples" for task in OUT_OF_DOMAIN]
for task, other in zip(OUT_OF_DOMAIN, _OTHERS, strict=True):
    _transfer(f"squad_to_{task}_examples", "squad_v010_allanswers", [other])
_transfer("squad_to_mrqa_examples", "squad_v010_allanswers", _OTHERS)

for version in VERSIONS:
    held_out = {f"glue_{task}_{version}": HELD_OUT for task in ("mnli_matched", "mnli_mismatched", "ax")}
    trained = {f"glue_{task}_{version}": size for task, size in GLUE_SIZES.items()}
    _proportional(f"glue_{version}", {**trained, **held_out})
_proportional(
    "super_glue_v102",
    {
        **SUPER_GLUE_SIZES,
        **dict.fromkeys(
            ("super_glue_wsc_v102_simple_eval", "super_glue_axb_v102", "super_glue_axg_v102"), HELD_OUT
        ),
    },
)
