"""Models that others exported and ship: silero-vad (speech or not) on recorded speech, and rapidocr's three (text).

On an ideal chip each output differs from onnxruntime's by less than 1e-4 of its largest magnitude. Their packages bring
more than these tests use (torch, opencv), so they are installed alone; see `.ci/run`.
"""

from __future__ import annotations

import importlib.util
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image, ImageDraw, ImageFont

import xbarsim as xs
from xbarsim.network.graph import subgraphs

IDEAL = xs.Chip.load("ideal")
SPEECH = Path("/usr/share/pocketsphinx/test/data")
PRODUCTS = {"Conv": [1], "ConvTranspose": [1], "Gemm": [0, 1], "LSTM": [1, 2], "MatMul": [0, 1]}
"""Operators that multiply with a matrix, and the inputs that may be one."""

SILERO = {
    "silero_vad": [16000, 8000],
    "silero_vad_16k_op15": [16000],
    "silero_vad_half": [16000],
    "silero_vad_op18_ifless": [16000, 8000],
}
"""Variants that take samples side by side, and their sampling rates."""

SILERO_ALONE = ["silero_vad_16k_sequence", "silero_vad_openvino_16k"]
RAPIDOCR = {"cls": "ch_ppocr_mobile_v2.0_cls_infer", "rec": "ch_PP-OCRv4_rec_infer", "det": "ch_PP-OCRv4_det_infer"}


def model_file(package, folder, name):
    found = importlib.util.find_spec(package.replace("-", "_"))
    if found is None:
        pytest.skip(f"{package} is not installed: pip install --no-deps {package}")
    return Path(found.origin).parent / folder / f"{name}.onnx"


def silero(name):
    return model_file("silero-vad", "data", name)


def rapidocr(name):
    return model_file("rapidocr-onnxruntime", "models", RAPIDOCR[name])


def recording(name):
    """Samples of a recording, 16,000 a second."""
    if not SPEECH.exists():
        pytest.skip(f"no recordings in {SPEECH}: apt-get install pocketsphinx-testdata")
    with wave.open(str(SPEECH / name)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def windows(name, rate, count):
    """Consecutive windows (count, samples) from the middle of a recording, each with the end of the one before."""
    sound = recording(name)
    sound = sound[len(sound) // 3 :]
    if rate == 8000:
        sound = sound[: len(sound) // 2 * 2].reshape(-1, 2).mean(axis=1)
    new, before = rate * 32 // 1000, rate * 4 // 1000
    return np.stack([sound[new * k : new * (k + 1) + before] for k in range(count)])


def streams(rate, count):
    """Windows (count, streams, samples) of three recordings."""
    names = ("cards/005.wav", *(f"librivox/sense_and_sensibility_01_austen_64kb-{k}.wav" for k in ("0870", "0920")))
    return np.stack([windows(name, rate, count) for name in names], axis=1)


def lines(height, width, size):
    """A page (1, 3, height, width) of black lines of text, from -1 to 1."""
    page = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size)
    for top in range(size // 4, height - size, 2 * size):
        pen.text((size // 2, top), "resistive memory", fill="black", font=font)
    return (np.asarray(page, np.float32) / 127.5 - 1).transpose(2, 0, 1)[np.newaxis]


def plain(file):
    """A function that runs a model in onnxruntime, and nothing but it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape
        assert np.abs(found[name] - value).max() < 1e-4 * np.abs(value).max(), name


def constant_products(graph, known=frozenset()):
    """How many constant matrices a model multiplies with, by operator."""
    known = {*known, *(item.name for item in graph.initializer)}
    found = Counter()
    for node in graph.node:
        for body in subgraphs(node):
            found += constant_products(body, known)
        matrices = [node.input[place] for place in PRODUCTS.get(node.op_type, ())]
        found[node.op_type] += sum(name in known for name in matrices)
        if not subgraphs(node) and all(name in known for name in node.input):
            known.update(node.output)
    return found


def assert_on_crossbars(file, network):
    """Every constant matrix is on crossbars; names and reasons of the other products."""
    rows = network.summary().rows
    model = onnx.load(file)
    assert not model.functions
    assert Counter(row.op for row in rows if row.place == "crossbar") == +constant_products(model.graph)
    return {row.name: row.reason for row in rows if row.op in PRODUCTS and row.place != "crossbar"}


@pytest.mark.parametrize("name", [*SILERO, *SILERO_ALONE])
def test_silero_multiplies_on_crossbars(name):
    digital = assert_on_crossbars(silero(name), xs.load(silero(name)))
    # what is left of an LSTM: sums, products and nonlinear functions of single numbers
    assert all(label.endswith("/LSTM") for label in digital)
    rest = {"Add", "Concat", "Gather", "Greater", "Identity", "Mul", "Reshape", "Scan", "Shape", "Sigmoid", "Split"}
    rest |= {"Tanh", "Transpose", "Unsqueeze", "Where"}
    assert all(set(why.removeprefix("around its matrix products: ").split(", ")) <= rest for why in digital.values())


@pytest.mark.parametrize(("name", "rate"), [(name, rate) for name, rates in SILERO.items() for rate in rates])
def test_silero_hears_what_it_hears_in_onnxruntime(name, rate):
    """Three recordings side by side; the state is carried over 12 windows, each time the simulated chip's own."""
    network = xs.load(silero(name))
    original, chip = plain(silero(name)), network.program(IDEAL).run
    states = [np.zeros((2, 3, 128), np.float32)] * 3
    heard = []
    for window in streams(rate, 12):
        feeds = {"input": window, "sr": np.array(rate)}
        given = [{key: (feeds | {"state": state})[key] for key in network.inputs} for state in states]
        results = [run(feeds) for run, feeds in zip((original, network.run_digital, chip), given, strict=True)]
        assert_equal(results[2], results[0])
        assert_equal(results[2], results[1])
        states = [result["stateN"] for result in results]
        heard.append(results[0]["output"])
    assert network.batching_for(given[0]).size == 16
    assert np.max(heard) > 0.9  # there is speech


def test_silero_of_one_window_at_a_time():
    name = "silero_vad_openvino_16k"
    network = xs.load(silero(name))
    original, chip = plain(silero(name)), network.program(IDEAL)
    state = np.zeros((2, 1, 128), np.float32)
    for window in windows("cards/005.wav", 16000, 8):
        feeds = {"input": window[np.newaxis], "state": state}
        expected = original(feeds)
        assert_equal(chip.run(feeds), expected)
        assert_equal(network.run_digital(feeds), expected)
        state = expected["stateN"]


def test_silero_of_a_whole_recording():
    name = "silero_vad_16k_sequence"
    network = xs.load(silero(name))
    feeds = {"input": windows("cards/005.wav", 16000, 40)}
    feeds |= {part: np.zeros((1, 1, 128), np.float32) for part in "hc"}
    expected = plain(silero(name))(feeds)
    assert_equal(network.program(IDEAL).run(feeds), expected)
    assert_equal(network.run_digital(feeds), expected)
    assert expected["speech_probs"].max() > 0.9
    assert "LSTM (LSTM) mixes samples" in network.batching_for(feeds).reason


@pytest.mark.parametrize("chip", ["ideal", "hfo2-1t1r"])
def test_silero_gives_the_same_bits_however_windows_are_cut(chip):
    network = xs.load(silero("silero_vad"))
    sound = windows("cards/005.wav", 16000, 40)
    state = np.random.default_rng(0).normal(size=(2, 40, 128)).astype(np.float32)
    feeds = {"input": sound, "state": state, "sr": np.array(16000)}
    programmed = network.program(xs.Chip.load(chip), calibration=feeds)
    whole = programmed.run(feeds)
    for first, last in ((0, 1), (1, 18), (18, 40)):
        part = {"input": sound[first:last], "state": state[:, first:last], "sr": 16000}
        found = programmed.run(part, first_sample=first)
        np.testing.assert_array_equal(found["output"], whole["output"][first:last])
        np.testing.assert_array_equal(found["stateN"], whole["stateN"][:, first:last])


def test_silero_counts_samples_of_a_data_set(tmp_path):
    """State carries samples on its second axis, which has no name."""
    network = xs.load(silero("silero_vad"))
    sound = windows("cards/005.wav", 16000, 30)
    np.savez(tmp_path / "speech.npz", input=sound, state=np.zeros((2, 30, 128), np.float32), sr=16000)
    data = xs.Dataset.load(tmp_path / "speech.npz", network, 20)
    found = xs.evaluate(network, data, IDEAL.replace({"faults.p_stuck_off": 0.001}), metrics=["mae"])
    assert found.n_samples == 20
    assert 0.0 < found.figures("mae")[0] <= 1.0


@pytest.mark.parametrize("name", RAPIDOCR)
def test_rapidocr_multiplies_on_crossbars(name):
    digital = assert_on_crossbars(rapidocr(name), xs.load(rapidocr(name)))
    # attention: scores, and their products with values, in both of its blocks
    both = {f"p2o.MatMul.{number}" for number in (2, 4, 14, 16)}
    assert digital == dict.fromkeys(both if name == "rec" else (), "MatMul of two activations")


@pytest.mark.parametrize(
    ("name", "height", "width", "size"),
    [
        ("cls", 48, 192, 24),  # what rapidocr cuts lines to
        ("cls", 32, 100, 12),
        ("rec", 48, 320, 36),
        ("rec", 48, 481, 40),
        ("det", 736, 736, 40),  # its shortest side
        ("det", 320, 480, 32),  # sides are multiples of 32
        ("det", 96, 64, 10),
    ],
)
def test_rapidocr_sees_what_it_sees_in_onnxruntime(name, height, width, size):
    network = xs.load(rapidocr(name))
    page = lines(height, width, size)
    feeds = {"x": page if name == "det" else np.concatenate([page, page[..., ::-1, ::-1], -page])}
    expected = plain(rapidocr(name))(feeds)
    assert_equal(network.run_digital(feeds), expected)
    assert_equal(network.program(IDEAL).run(feeds), expected)


def test_a_chip_reads_text():
    file = rapidocr("rec")
    network = xs.load(file)
    characters = next(item.value for item in onnx.load(file).metadata_props if item.key == "character").splitlines()
    scores = network.program(IDEAL).run(lines(48, 320, 36))
    best = scores["softmax_11.tmp_0"][0].argmax(axis=1)
    changed = best[np.flatnonzero(np.diff(best, prepend=-1))]
    assert "".join([*characters, " "][number - 1] for number in changed if number).strip() == "resistive memory"
