"""How charts look: Okabe and Ito's colours in light and dark, and the library that draws them."""

from __future__ import annotations

from typing import Any

from jax_prompts.errors import ConfigError

ROWS = "rows"  # name of a chart's data
HEIGHT = 260  # pixels
# Okabe and Ito 2008, Color Universal Design; yellow is too pale on white, black on black.
LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7A7A7A")
DARK = ("#56B4E9", "#E69F00", "#2FC79A", "#CC79A7", "#F0E442", "#F08040", "#FFFFFF", "#A0A0A0")
FONT = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Arial, sans-serif"
DIVERGING = "blueorange"
SEQUENTIAL = "blues"


def altair() -> Any:
    """The library that makes charts.

    Raises:
      ConfigError: it is not installed.
    """
    try:
        import altair
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"pictures need {error.name}, which is not installed: in the checkout, pip install -e '.[report]'"
        ) from error
    return altair


def config(*, dark: bool) -> dict[str, Any]:
    """Vega-Lite's configuration of every chart."""
    ink, quiet, line, ground = (
        ("#e8eaed", "#b6bcc4", "#3a4048", "#16191d") if dark else ("#1b1f24", "#4d5560", "#dfe3e8", "#ffffff")
    )
    colours = list(DARK if dark else LIGHT)
    words = {"labelColor": quiet, "titleColor": ink, "labelFont": FONT, "titleFont": FONT}
    sizes = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 500}
    return {
        "background": ground,
        "font": FONT,
        "view": {"stroke": None},
        "axis": {**words, **sizes, "gridColor": line, "domainColor": quiet, "tickColor": quiet},
        "legend": {**words, **sizes, "orient": "top", "columns": 2, "labelLimit": 300, "symbolSize": 90},
        "range": {"category": colours},
        "mark": {"color": colours[0]},
        "rule": {"color": ink},
        "text": {"color": ink, "font": FONT, "fontSize": 12},
    }


def base() -> Any:
    """An empty Altair chart of the data `ROWS`."""
    alt = altair()
    return alt.Chart(alt.NamedData(name=ROWS))


def fitted(chart: Any, description: str, height: int = HEIGHT) -> Any:
    """A chart as wide as its place.

    Args:
      chart: of Altair.
      description: what a screen reader says in its place.
      height: of its data, in pixels.
    """
    fit = altair().AutoSizeParams(type="fit-x", contains="padding")
    return chart.properties(width="container", height=height, autosize=fit, description=description)
