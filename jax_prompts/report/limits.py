"""How much of many runs one page shows, so that it stays small and quick; the page says these limits itself."""

LINES = 8  # in one chart: as many as colours that the colour-blind can tell apart
POINTS = 100  # of one line
CURVE_GROUPS = 12  # tasks, or suites' tasks, with curves
ROWS = 300  # of one table
HEAT_MAPS = 12  # prompts
POSITIONS = 128  # of a heat map
CONFUSIONS = 24  # matrices
CLASSES = 30  # of a matrix, and of a list of labels to choose from
HISTOGRAMS = 12  # tasks
STUDIES = 24  # files
PREDICTIONS = 50_000  # embedded
CHARACTERS = (600, 400, 250, 150, 80, 40)  # of a text, the first that fits
PREDICTION_BYTES = 1_300_000  # compressed
NAME = 60  # characters of a run's name in a chart


def said() -> str:
    """The limits in words, for readers of a page."""
    return (
        f"A chart has at most {LINES} lines of {POINTS} points each, of the best scores; curves are drawn of "
        f"{CURVE_GROUPS} tasks, heat maps of {HEAT_MAPS} prompts and {POSITIONS} positions, {CONFUSIONS} confusion "
        f"matrices of up to {CLASSES} classes, length histograms of {HISTOGRAMS} tasks, {STUDIES} studies. A table has "
        f"at most {ROWS} rows, the page at most {PREDICTIONS:,} predictions, whose texts are cut to "
        f"{CHARACTERS[0]} characters, or to as few as keep the page under about 3 MB. Whatever is left out is said "
        "where it is missing."
    )
