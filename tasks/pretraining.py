"""Pre-training tasks `span_corruption`, `prefix_lm` and `masked_lm`, on the text files of DATA_DIR."""

from tasks import registration
from tasks.sources.text_files import TextFiles
from tasks.text.objectives import masked_lm, prefix_lm, span_corruption

for objective in (span_corruption, prefix_lm, masked_lm):
    registration.add_objective(objective.__name__, TextFiles(), objective, family="pretraining")
