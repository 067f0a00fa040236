"""Plots: what is drawn is what the data say; pixels are looked at by people."""

from __future__ import annotations

import io
import itertools
import math
import statistics
from typing import Any

import numpy as np
import pytest
import xarray as xr
from sweeps import BITS, KINDS, RATES, sweep

import xbarsim as xs
from xbarsim import plot
from xbarsim.portrait import CELL_EDGES, CODE_EDGES, Portrait


def lines_of(axes: Any, label: str) -> list[Any]:
    return [line for line in axes.lines if line.get_label() == label]


def legend_texts(figure: Any) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def drawn(figure: Any) -> None:
    figure.savefig(io.BytesIO(), format="png", dpi=40)


# -- curves ------------------------------------------------------------------------------------------------------------


def test_curves_are_means_over_chips_with_their_spread() -> None:
    ds = sweep({"faults_rate": RATES, "mapping_kind": KINDS}, chips=7)
    figure = plot.curves(ds)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "faults.rate"
    assert figure.get_supylabel() == "accuracy (top-1) [%]"
    for place, (kind, band) in enumerate(zip(KINDS[0], axes.collections, strict=True)):
        (line,) = lines_of(axes, kind)
        np.testing.assert_array_equal(line.get_xdata(), RATES[0])
        values = 100.0 * ds["top-1"].values[:, place]
        np.testing.assert_allclose(line.get_ydata(), [statistics.fmean(row) for row in values], rtol=1e-12)
        edges = band.get_paths()[0].vertices
        for rate, row in zip(RATES[0], values, strict=True):
            bounds = edges[np.isclose(edges[:, 0], rate, rtol=1e-12), 1]
            low, high = (statistics.fmean(row) + sign * statistics.stdev(row) for sign in (-1, 1))
            np.testing.assert_allclose([bounds.min(), bounds.max()], [low, high], rtol=1e-12)
    dots = np.sort(np.concatenate([line.get_ydata() for line in axes.lines if line.get_alpha() == 0.3]))
    np.testing.assert_allclose(dots, np.sort(100.0 * ds["top-1"].values.ravel()), rtol=1e-12)
    (dashed,) = [line for line in axes.lines if line.get_linewidth() == 1.2]
    np.testing.assert_allclose(dashed.get_ydata(), 92.5)
    assert legend_texts(figure) == ["two-column", "differential", "chip", "standard deviation", "digital network"]
    assert figure.legends[0].get_title().get_text() == "mapping.kind"
    drawn(figure)


def test_more_than_six_lines_become_several_plots() -> None:
    ds = sweep({"mapping_kind": KINDS, "faults_rate": RATES, "adc_bits": BITS})
    figure = plot.curves(ds)
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["mapping.kind = two-column", "mapping.kind = differential"]
    for place, axes in enumerate(figure.axes):
        for number, bits in enumerate(BITS[0]):
            (line,) = lines_of(axes, str(bits))
            mean = 100.0 * ds["top-1"].isel(mapping_kind=place, adc_bits=number).mean("chip")
            np.testing.assert_allclose(line.get_ydata(), mean, rtol=1e-12)
    drawn(figure)


def test_six_lines_are_one_plot() -> None:
    axes = {"faults_rate": RATES, "mapping_kind": KINDS, "adc_bits": (BITS[0][:3], "linear")}
    (one,) = plot.curves(sweep(axes)).axes
    assert len([line for line in one.lines if line.get_linewidth() == 1.8]) == 6
    assert len(lines_of(one, "differential, 5")) == 1


def test_values_are_drawn_in_their_order() -> None:
    ds = sweep({"faults_rate": (np.array([0.1, 1e-3, 0.01]), "log")})
    (line,) = [line for line in plot.curves(ds).axes[0].lines if line.get_linewidth() == 1.8]
    mean = 100.0 * ds["top-1"].mean("chip").values
    np.testing.assert_allclose(line.get_xydata(), [(1e-3, mean[1]), (0.01, mean[2]), (0.1, mean[0])], rtol=1e-12)


@pytest.mark.parametrize("draw", [plot.curves, plot.layer_errors])
@pytest.mark.parametrize("names", [7, 3])
def test_of_many_plots_some_are_drawn(draw: Any, names: int) -> None:
    """Seven names are too many lines of a plot, three are not."""
    some = (np.array([f"n{number}" for number in range(30)], object), "category")
    few = (np.array([f"k{number}" for number in range(names)], object), "category")
    figure = draw(sweep({"x": BITS, "a": some, "b": few}, chips=2))
    titles = [axes.get_title("left") for axes in figure.axes]
    every = 210 if names == 7 else 90 if draw is plot.layer_errors else 30
    assert len(titles) == 24
    assert titles[0].startswith("a = n0")
    assert titles[-1].startswith("a = n29")
    assert f"24 of {every} plots" in figure.legends[0].get_title().get_text()


def test_chips_that_were_not_run_do_not_count() -> None:
    """One chip fewer, one chip alone, and none."""
    ds = sweep({"faults_rate": RATES}, chips=3)
    values = ds["top-1"].values
    values[1, 2], values[2, 1:], values[3] = np.nan, np.nan, np.nan
    (axes,) = plot.curves(ds).axes
    (line,) = [line for line in axes.lines if line.get_linewidth() == 1.8]
    wanted = [*(100.0 * statistics.fmean(row[~np.isnan(row)]) for row in values[:3]), np.nan]
    np.testing.assert_allclose(line.get_ydata()[:4], wanted, rtol=1e-12)
    edges = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
    bounds = edges[np.isclose(edges[:, 0], RATES[0][2], rtol=1e-12), 1]
    np.testing.assert_allclose(bounds, wanted[2], rtol=1e-12)  # a single chip has no spread


@pytest.mark.parametrize("axes", [{}, {"a": KINDS}, {"a": KINDS, "b": KINDS}, {"a": KINDS, "b": KINDS, "c": KINDS}])
def test_without_numbers_each_value_has_a_row(axes: dict[str, Any]) -> None:
    ds = sweep(axes, chips=5)
    figure = plot.curves(ds)
    found = []
    for panel in figure.axes:
        for container in panel.containers:
            line, _, (bars,) = container.lines
            for (x, y), segment in zip(line.get_xydata(), bars.get_segments(), strict=True):
                assert round(y) == np.floor(y + 0.5)
                found.append((x, segment[1][0] - segment[0][0]))
    values = 100.0 * ds["top-1"].values.reshape(-1, 5)
    wanted = [(statistics.fmean(row), 2.0 * statistics.stdev(row)) for row in values]
    np.testing.assert_allclose(sorted(found), sorted(wanted), rtol=1e-9)
    if axes:
        assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(KINDS[0])
    drawn(figure)


def test_a_figure_that_is_no_share_has_its_own_unit() -> None:
    ds = sweep({"adc_bits": BITS})
    for name, label in (("mse", "mean squared error"), ("signal_to_error_db", "signal to error [dB]")):
        figure = plot.curves(ds, name)
        assert figure.get_supylabel() == label
        (line,) = [line for line in figure.axes[0].lines if line.get_linewidth() == 1.8]
        np.testing.assert_allclose(line.get_ydata(), ds[name].mean("chip"), rtol=1e-12)
        assert figure.axes[0].get_xscale() == "linear"
        assert "digital network" not in legend_texts(figure)


def test_networks_that_differ_have_a_dashed_line_each() -> None:
    for axes in ({"faults_rate": RATES, "model": KINDS}, {"mapping_kind": KINDS, "model": KINDS}):
        ds = sweep(axes)
        ds["digital_top-1"] = ds["digital_top-1"] - 0.1 * xr.DataArray([0.0, 1.0], dims="model")
        (panel,) = plot.curves(ds).axes
        if "faults_rate" in axes:
            dashed = [set(line.get_ydata()) for line in panel.lines if line.get_linewidth() == 1.2]
        else:
            marks = [one for one in panel.collections if len(one.get_linestyles()[0][1] or ()) == 2]
            dashed = [{segment[0][0] for segment in one.get_segments()} for one in marks]
        assert [sorted(values) for values in dashed] == [[pytest.approx(92.5)], [pytest.approx(82.5)]]


def test_unknown_metrics_are_named() -> None:
    ds = sweep({"adc_bits": BITS})
    with pytest.raises(xs.DataError, match=r"'top-7'.*top-1, mse, signal_to_error_db"):
        plot.curves(ds, "top-7")
    with pytest.raises(xs.DataError, match="no metric"):
        plot.curves(ds, "chips")
    with pytest.raises(xs.DataError, match="no figures of layers"):
        plot.layer_errors(ds.drop_vars("layer_signal_to_error_db"))


@pytest.mark.parametrize("text", ["$x_{", r"\frac$", "a\nb", "$\\unknown{1}$ and $2$"])
def test_names_are_no_formulas(text: str) -> None:
    kinds = (np.array([text, "other"], object), "category")
    ds = sweep({"faults_rate": RATES, "mapping_kind": kinds}, layers=(text, "fc"))
    ds["top-1"].attrs["long_name"] = text
    figure = plot.curves(ds)
    assert figure.get_supylabel() == f"{text} [%]"
    for one in (figure, plot.layer_errors(ds), plot.fault_map(portrait((text,)))):
        drawn(one)


# -- layers ------------------------------------------------------------------------------------------------------------


def test_layers_have_a_line_for_each_number_and_a_plot_for_the_rest() -> None:
    ds = sweep({"faults_rate": RATES, "mapping_kind": KINDS}, layers=("a", "b", "c", "d"))
    ds["layer_signal_to_error_db"][0, 0, :, 1] = np.inf  # no error at all
    figure = plot.layer_errors(ds)
    assert [axes.get_title("left") for axes in figure.axes] == [f"mapping.kind = {kind}" for kind in KINDS[0]]
    for place, axes in enumerate(figure.axes):
        assert len(axes.containers) == 6
        for number, container in enumerate(axes.containers):
            values = ds["layer_signal_to_error_db"].values[number, place].T
            mean = [statistics.fmean(row) if np.isfinite(row).all() else np.nan for row in values]
            np.testing.assert_allclose(container.lines[0].get_xdata(), mean, rtol=1e-12)
            np.testing.assert_array_equal(container.lines[0].get_ydata(), range(4))
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["a", "b", "c", "d"]
    assert legend_texts(figure)[:2] == ["0.001", "0.00251"]
    drawn(figure)


def test_layers_of_many_values_and_of_none() -> None:
    many = plot.layer_errors(sweep({"x": (np.arange(30), "linear")}))
    assert len(many.axes[0].containers) == 12
    assert legend_texts(many)[0::11] == ["0", "29"]
    for axes in ({}, {"mapping_kind": KINDS}):
        figure = plot.layer_errors(sweep(axes))
        assert len(figure.axes[0].containers) == max(1, 2 * len(axes))
        drawn(figure)


# -- importance --------------------------------------------------------------------------------------------------------


def test_importance_draws_the_shares_of_variance() -> None:
    from xbarsim.study.importance import importance

    ds = sweep({"faults_rate": RATES, "mapping_kind": KINDS})
    found, figure = importance(ds), plot.importance(ds)
    (axes,) = figure.axes
    more, alone = (np.array([bar.get_width() for bar in bars]) for bars in axes.containers)
    np.testing.assert_allclose(alone, [100.0 * share for share in (*found.alone.values(), found.chips)])
    np.testing.assert_allclose(more, [100.0 * share for share in found.in_all.values()])
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["faults.rate", "mapping.kind", "spread between chips"]
    drawn(figure)
    one = plot.importance(sweep({"faults_rate": RATES}, chips=1))
    assert "unknown" in [text.get_text() for text in one.axes[0].texts]
    assert "one chip" in one.axes[0].get_title("left")


# -- portraits ---------------------------------------------------------------------------------------------------------


def portrait(layers: tuple[str, ...], seed: int = 3, converts: bool = True) -> Portrait:
    rng = np.random.default_rng(0)
    cells, codes = CELL_EDGES.size - 1, CODE_EDGES.size - 1
    faults = rng.choice(np.array([0, 0, 0, 1, 2], np.int8), (len(layers), 9, 6))
    faults[:, :, 4:], faults[:, 7:] = -1, -1
    counts = rng.integers(0, 1000, (3, len(layers), max(cells, codes)))
    return Portrait(
        seed, layers, CELL_EDGES, counts[0, :, :cells], counts[1, :, :cells], faults, CODE_EDGES,
        counts[2, :, :codes] * converts,
    )  # fmt: skip


def test_conductances_are_drawn_as_counted() -> None:
    one = portrait(("conv", "fc"))
    figure = plot.conductances(one)
    assert [axes.get_title("left") for axes in figure.axes] == ["conv", "fc"]
    for number, axes in enumerate(figure.axes):
        for patch, counts in zip(axes.patches, (one.programmed, one.target), strict=True):
            np.testing.assert_array_equal(patch.get_data().values, counts[number])
            np.testing.assert_array_equal(patch.get_data().edges, one.cell_value)
        assert axes.get_yscale() == "log"
    assert legend_texts(figure) == ["wanted", "reached, stuck cells included"]
    assert figure.legends[0].get_title().get_text() == "chip 3"
    drawn(figure)


def test_fault_maps_show_the_cells_that_there_are() -> None:
    one = portrait(("conv", "fc"))
    figure = plot.fault_map(one)
    for number, axes in enumerate(figure.axes):
        shown = np.asarray(axes.images[0].get_array())
        np.testing.assert_array_equal(shown, one.faults[number, :7, :4])
        kinds = shown.ravel().tolist()
        on, off = (100.0 * kinds.count(kind) / 28 for kind in (1, 2))
        assert axes.get_title("left") == f"{one.layers[number]}\n{on:.2g} % on, {off:.2g} % off"
        colours = axes.images[0].cmap(axes.images[0].norm([-1, 0, 1, 2]))
        assert len({tuple(colour) for colour in colours}) == 4
    assert legend_texts(figure) == ["stuck-on", "stuck-off", "works", "no cell"]
    drawn(figure)


def test_adc_use_is_the_share_of_conversions() -> None:
    one = portrait(("conv", "fc"))
    figure = plot.adc_use(one)
    for number, axes in enumerate(figure.axes):
        np.testing.assert_allclose(
            axes.patches[0].get_data().values, 100.0 * one.codes[number] / one.codes[number].sum()
        )
        assert [line.get_xdata()[0] for line in axes.lines] == [-1.0, 1.0]
    drawn(figure)
    with pytest.raises(xs.DataError, match="no conversions"):
        plot.adc_use(portrait(("fc",), converts=False))


@pytest.mark.parametrize("draw", [plot.conductances, plot.fault_map, plot.adc_use])
def test_of_many_layers_some_are_drawn(draw: Any) -> None:
    figure = draw(portrait(tuple(f"layer {number}" for number in range(40))))
    titles = [axes.get_title("left").split("\n")[0] for axes in figure.axes]
    assert len(titles) == 12
    assert (titles[0], titles[-1]) == ("layer 0", "layer 39")
    steps = {int(b[6:]) - int(a[6:]) for a, b in itertools.pairwise(titles)}
    assert steps <= {math.floor(39 / 11), math.ceil(39 / 11)}
    assert "12 of 40 layers" in figure.legends[0].get_title().get_text()
    drawn(figure)
