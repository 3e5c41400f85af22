"""Pre-training tasks `span_corruption`, `prefix_lm` and `masked_lm`, on the text files of DATA_DIR."""

import seqio

from tasks.features import OUTPUT_FEATURES
from tasks.sources.text_files import TextFiles
from tasks.text.objectives import masked_lm, prefix_lm, span_corruption

for objective in (span_corruption, prefix_lm, masked_lm):
    seqio.TaskRegistry.add(
        objective.__name__,
        source=TextFiles(),
        preprocessors=[objective],
        output_features=OUTPUT_FEATURES,
    )
